"""Modules without which a test has nothing to do."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def need(*modules: str) -> None:
    """Skip a test, or where it stands on its own all of a file, unless all modules are installed.

    They are looked for, not imported: TensorFlow takes five seconds in each of pytest's processes,
    and a framework belongs into the process of its backend.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}", allow_module_level=True)
