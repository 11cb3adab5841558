"""Derivatives of programs, as programs in the same primitives."""
