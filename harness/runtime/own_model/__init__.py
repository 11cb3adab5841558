"""Users' own models: open them in their framework's process, load weights, run them."""
