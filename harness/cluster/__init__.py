"""Processes on many machines: cluster nodes, distribution of work, and a second try for work that
was lost with a process."""
