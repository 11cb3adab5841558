"""Results of a run of checks or of a benchmark: in memory, and as the lines of a file."""
