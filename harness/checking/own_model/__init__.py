"""Check a user's own model as a backend is checked: ``harness check SPEC --against FILE``."""
