"""Common parts of runs of checks and of benchmarks: shards, plans and comparison."""
