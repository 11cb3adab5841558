"""A model of a user's own, in the process of its framework: found, given weights, run."""
