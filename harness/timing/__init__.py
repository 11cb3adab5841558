"""Throughput that can be trusted: backends timed side by side, and proved to do the work."""
