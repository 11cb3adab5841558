"""Training a spec on a text: batches, steps, checkpoints."""
