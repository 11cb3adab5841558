"""The numpy backend: the simplest one, and the one that needs no framework."""
