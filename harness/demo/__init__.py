"""A first look: a small check, and the same with a planted fault."""
