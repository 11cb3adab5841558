"""Mutated inputs for every reader of what a stranger gives."""
