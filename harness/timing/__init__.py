"""Speed measurement: backends are timed in turn, and must prove that they did all of the work."""
