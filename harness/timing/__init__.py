"""Trusted speed measurement: backends timed in turn, with proofs that they do the work."""
