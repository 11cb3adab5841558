"""The demonstration: a small check that agrees, and the same check with an intentional fault in the
backend."""
