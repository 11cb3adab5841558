"""The program of a model as typed data, and all that rewrites it; no arrays, no I/O."""
