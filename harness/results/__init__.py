"""The results of checks and benchmarks: in memory, and as lines of a file."""
