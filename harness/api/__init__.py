"""Functions of ``import harness``, and their results; slow imports are left to the calls."""
