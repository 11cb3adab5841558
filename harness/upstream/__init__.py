"""A difference for those who can repair it: shown without the harness, in words of an issue."""
