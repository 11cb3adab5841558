"""The lines of a user's code that run an operation, for messages."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from pathlib import Path

# Folders of frameworks and of Python's library, whose lines are no place of a model's code.
FRAMEWORKS = re.compile(
    r"/(torch|jax|jaxlib|flax|keras|tensorflow|numpy|harness)/"
    r"|/python3\.\d+/(?!site-packages|dist-packages)|^<"
)


def place_of(frames: Iterable[tuple[str, int]]) -> str:
    """Return the innermost place that is not in a framework or the harness, such as ``net.py:12``.
    ``frames`` are files and lines, innermost last."""
    own = [(file, line) for file, line in frames if not FRAMEWORKS.search(file)]
    return f"{Path(own[-1][0]).name}:{own[-1][1]}" if own else ""


def current_place() -> str:
    """Return the place that runs now; see :func:`place_of`."""
    return place_of((f.filename, f.lineno or 0) for f in traceback.extract_stack())
