"""Turning a user's model into a spec: ``harness port``."""
