"""The float64 reference, its arguments, and the tolerances of results."""
