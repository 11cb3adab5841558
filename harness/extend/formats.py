"""Functions and classes for file formats that export a model and import its weights.

Weights are read with size limits, and no code in a file is run.
"""

from __future__ import annotations

from harness.convert.archive import (
    DESCRIBED,
    FLOATS,
    INTEGERS,
    Archive,
    Damaged,
    Declared,
    archive,
    bytes_of,
    read_arrays,
    reading,
)
from harness.convert.formats import Exported, Format, Script
from harness.convert.source.vetting import run_file
from harness.files.atomic import whole
from harness.files.user_file import MAX_WEIGHTS, opened, read_bytes

__all__ = [
    "DESCRIBED",
    "FLOATS",
    "INTEGERS",
    "MAX_WEIGHTS",
    "Archive",
    "Damaged",
    "Declared",
    "Exported",
    "Format",
    "Script",
    "archive",
    "bytes_of",
    "opened",
    "read_arrays",
    "read_bytes",
    "reading",
    "run_file",
    "whole",
]
