"""Compiled code that is kept between runs, to save time."""
