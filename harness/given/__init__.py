"""Passes over a user's own numbers, through any backend or the oracle."""
