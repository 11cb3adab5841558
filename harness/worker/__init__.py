"""One process a backend, whatever the backend does to itself; knows no model."""
