"""The Keras backends, on TensorFlow, PyTorch or JAX, and the ``.keras`` weight format."""
