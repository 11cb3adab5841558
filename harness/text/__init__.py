"""Training texts, and their conversion to arrays of character indices."""
