"""The functions of ``import harness``, and what they return.

The modules of the functions import next to nothing, since ``harness`` imports them at its start;
results, and whatever does the work, are imported by the call.
"""
