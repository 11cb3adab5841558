"""The backend ``numpy``, which is the simplest backend and needs no framework."""
