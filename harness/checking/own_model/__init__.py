"""A model of a user's own, checked as a backend is: ``harness check SPEC --against FILE``."""
