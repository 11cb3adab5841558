"""The code that runs of checks and of benchmarks share: shards, plans and comparisons."""
