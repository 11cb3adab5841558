"""Code that runs in the process of a backend: it runs a program (a model's operations) on arrays
with one framework."""
