"""The backends ``jax`` and ``flax``, their weight format, and the export of models as JAX
source."""
