"""A function that skips tests if modules are not installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def need(*modules: str) -> None:
    """Skip a test unless all modules are installed; at the top of a file, skip the whole file.

    The modules are not imported: importing TensorFlow takes five seconds in each pytest process.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}", allow_module_level=True)
