"""The oracle (a float64 reference implementation), its test arrays, and the tolerances for
results."""
