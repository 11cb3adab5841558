"""Environments with other framework versions, made once and kept in the user's cache folder."""
