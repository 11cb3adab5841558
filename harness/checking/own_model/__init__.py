"""The checks of a user's own model against a spec: ``harness check SPEC --against FILE``."""
