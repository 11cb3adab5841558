"""The contract of a backend reads nothing that only formats and models of users need."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax", "keras"])
def test_the_module_of_a_backend_imports_nothing_of_formats(backend: str) -> None:
    """A worker imports the module at its start, and so does every list of backends."""
    program = (
        f"import sys, harness.backends.{backend}.backend\n"
        "print([name for name in sys.modules if name.startswith('harness.convert')])"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
