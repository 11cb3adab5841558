"""numpy: the plain backend, and the one that needs no framework."""
