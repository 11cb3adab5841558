"""Code that runs a single pass of a model on a user's own arrays, on any backend or on the
oracle."""
