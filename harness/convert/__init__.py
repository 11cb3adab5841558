"""Convert weights to and from the files of frameworks, and models to Python source."""
