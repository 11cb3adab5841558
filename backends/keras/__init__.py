"""The Keras backends, on TensorFlow, PyTorch or JAX, and their weight format."""
