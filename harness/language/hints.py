"""Hints for error messages: what to write instead of names from Python and the frameworks.

The hints are in ``hints.yaml`` next to the shipped specs. A folder of definitions may contain a
``hints.yaml`` too, whose entries take precedence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from harness.language.base_models import Strict
from harness.language.document import load, parse, validate

FILE = "hints.yaml"


def _split_names(hints: Mapping[str, str]) -> dict[str, str]:
    """Return the ``hints`` with one key for each name: a key such as ``cat, concatenate`` becomes
    two keys with the same hint."""
    return {name: hint for names, hint in hints.items() for name in names.split(", ")}


ByName = Annotated[dict[str, str], AfterValidator(_split_names)]


class Hints(Strict):
    """Hints on what to write in place of names from Python and the frameworks, e.g. of ``cat``.
    Each field maps names to hints. A key in a file may list several names, separated by commas.

    Keys of ``definitions`` are in lower case, without underscores and dotted prefixes.
    """

    functions: ByName = {}
    after_dot: ByName = {}
    constants: ByName = {}
    words: ByName = {}
    signs: ByName = {}
    attributes: ByName = {}
    renamed_attributes: ByName = {}
    complements: ByName = {}
    attributes_of_others: ByName = {}
    definitions: ByName = {}


@cache
def shipped_hints() -> Hints:
    """Read and return the shipped hints."""
    text = files("harness.specs").joinpath(FILE).read_text(encoding="utf-8")
    return validate(parse(text, f"specs/{FILE}"), Hints)


def read_hints(folders: Iterable[Path]) -> Hints:
    """Return the shipped hints, overridden by the hints in folders. An earlier folder overrides a
    later folder.

    Raises:
        SpecError: a file with hints is invalid.
    """
    merged = dict(shipped_hints())
    for folder in reversed(tuple(folders)):
        if (folder / FILE).exists():
            for section, hints in validate(load(folder / FILE), Hints):
                merged[section] = merged[section] | hints
    return Hints.model_construct(**merged)
