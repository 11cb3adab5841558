"""Training of a spec's model on a text or on arrays, with checkpoints."""
