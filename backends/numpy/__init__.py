"""The numpy backend: the simplest backend, which needs no framework."""
