"""Texts that models are trained on: where they come from, how they become arrays."""
