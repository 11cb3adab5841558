"""The functions of ``import harness`` and their results. Slow modules are imported by the calls."""
