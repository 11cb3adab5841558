"""The PyTorch backend, its weight format and its exported source."""
