"""The network: encoder, aggregator, heads, and the files its weights live in."""
