"""What a scene costs: time by stage, memory, and operations beside the machine's own rate."""
