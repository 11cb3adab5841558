"""The float64 reference, its arguments, and how far anyone may be off."""
