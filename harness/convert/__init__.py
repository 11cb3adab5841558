"""Conversion of weights to and from the files of frameworks, and of models to Python source."""
