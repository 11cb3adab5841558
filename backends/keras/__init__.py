"""Keras on TensorFlow, PyTorch or JAX: its backends and its format."""
