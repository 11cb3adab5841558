"""Every module is imported, patched and documented by the path of its file."""

from __future__ import annotations

import pydoc
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from levels import modules

ROOT = Path(__file__).parents[2]
NAMES = [name for name in modules(ROOT) if not name.startswith("harness.backends")]


def replaced_by_function(name: str) -> bool:
    """Whether attribute access along the path ``name`` ends at anything but that module.

    ``import a.b as c``, ``monkeypatch.setattr("a.b.c", ...)`` and ``pydoc`` follow attributes.
    """
    return pydoc.locate(name) is not import_module(name)


def test_every_module_is_found_by_its_path() -> None:
    assert len(NAMES) > 100
    assert [name for name in NAMES if replaced_by_function(name)] == []


def test_a_name_of_a_module_is_patched_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setattr(f"{name}.__doc__", "patched")
        assert import_module(name).__doc__ == "patched"


def test_a_function_that_hides_a_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import harness

    monkeypatch.setattr(harness, "results", harness.check)
    assert replaced_by_function("harness.results.findings")
    assert isinstance(import_module("harness.results.findings"), ModuleType)
