"""Numbers of a user's own: read, and run once through any backend or the oracle."""
