"""Train a spec on a text or on arrays, with checkpoints."""
