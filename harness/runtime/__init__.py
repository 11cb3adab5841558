"""A program, arrays and one framework: what runs in the process of a backend."""
