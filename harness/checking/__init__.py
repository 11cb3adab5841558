"""Checks of every backend against the oracle, cell by cell."""
