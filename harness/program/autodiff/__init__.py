"""Differentiation of programs: the derivative is a program in the same primitives."""
