"""Functions of ``import harness``, and their results.

``harness`` imports these modules at its start, so slow imports are left to the calls.
"""
