"""What runs of checks and of benchmarks have in common: shards, and runs joined or compared."""
