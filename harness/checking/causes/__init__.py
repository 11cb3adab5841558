"""The search for the causes of a difference: replace a wrong value by the right one, and see
whether all other values then agree."""
