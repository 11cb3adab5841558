"""Weights out of the harness into frameworks, and back; models as Python source."""
