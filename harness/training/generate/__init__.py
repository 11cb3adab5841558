"""Continue a prompt with a model that was trained on characters."""
