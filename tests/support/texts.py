"""A text to train on."""

from __future__ import annotations

FOX = "the quick brown fox jumps over the lazy dog. "
