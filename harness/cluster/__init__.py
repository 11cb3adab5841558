"""Processes on many machines: where they are, what they do next, and what becomes of lost work."""
