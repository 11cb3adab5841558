"""The PyTorch backend, its weight format, and its export as Python source."""
