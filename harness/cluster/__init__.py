"""Processes on many machines: nodes, distribution of work, and recovery of lost work."""
