"""The JAX backends, their weight format and their exported source."""
