"""Many adapters on one frozen backbone: trained alike, examined alike, in one table."""
