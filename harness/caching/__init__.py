"""Compiled code and measured noise that are kept between runs, to save time."""
