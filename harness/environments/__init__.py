"""Environments (Python installations with other framework versions), made once and stored in the
user's cache folder."""
