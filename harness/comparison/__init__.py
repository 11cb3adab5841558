"""Comparison of two runs of checks or benchmarks, e.g. before and after an upgrade or a commit."""
