"""Training texts: where they come from and how they become arrays."""
