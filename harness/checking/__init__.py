"""Checks that compare every backend with the oracle, cell by cell."""
