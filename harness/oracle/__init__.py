"""The float64 reference implementation, its test inputs, and the tolerances for results."""
