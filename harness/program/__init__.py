"""The program of a model as a typed graph of operations, and the optimisation passes that rewrite
it.

This package reads no arrays and no files.
"""
