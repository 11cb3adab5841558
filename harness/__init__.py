"""Compare how frameworks run one model: declared as data, checked against a float64 oracle."""
