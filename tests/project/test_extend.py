"""What only formats need of ``harness.extend`` is read late, and is what type checkers see."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import extend


def seen_by_type_checkers() -> Iterator[tuple[str, str]]:
    """The names that are imported for types only, each with its module."""
    for node in ast.parse(Path(extend.__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for inner in node.body:
                assert isinstance(inner, ast.ImportFrom)
                yield from ((alias.name, str(inner.module)) for alias in inner.names)


def test_what_is_read_late_is_what_type_checkers_see() -> None:
    assert dict(seen_by_type_checkers()) == extend._HOMES


@pytest.mark.parametrize("name", extend.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(extend, name) is getattr(extend, name)


def test_another_name_is_no_part_of_it() -> None:
    with pytest.raises(AttributeError, match=r"module 'harness\.extend' has no attribute 'layer'"):
        extend.layer  # noqa: B018


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax", "keras"])
def test_a_backend_s_module_reads_nothing_of_formats(backend: str) -> None:
    """A worker imports it at its start, and every list of backends does."""
    program = (
        f"import sys, harness.backends.{backend}.backend\n"
        "print([name for name in sys.modules if name.startswith('harness.convert')])"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
