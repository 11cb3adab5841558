"""Code of a backend's process: it runs a program on arrays with one framework."""
