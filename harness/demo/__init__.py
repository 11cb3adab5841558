"""The demonstration: a small check, and the same check with a fault planted in the backend."""
