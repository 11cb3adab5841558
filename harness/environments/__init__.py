"""Environments of other versions, made once and kept in the user's cache folder."""
