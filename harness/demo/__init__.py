"""Demonstration: a small check, and the same check with a planted fault."""
