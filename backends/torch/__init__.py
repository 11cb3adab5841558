"""PyTorch: its backend, its format and the source that is written for it."""
