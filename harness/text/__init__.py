"""Training texts, and their conversion to arrays."""
