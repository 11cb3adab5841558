"""Hints at names that people know from Python and from frameworks: what to write instead.

The hints are data, ``hints.yaml`` beside the specs that ship. A folder of definitions may have a
file of the same name and form, whose entries come before those that ship.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from harness.language.document import load, parse, validate
from harness.language.strict import Strict

FILE = "hints.yaml"


def _by_name(hints: Mapping[str, str]) -> dict[str, str]:
    """Give each name of a key such as ``cat, concatenate`` the hint of the key."""
    return {name: hint for names, hint in hints.items() for name in names.split(", ")}


ByName = Annotated[dict[str, str], AfterValidator(_by_name)]


class Hints(Strict):
    """What to write, by the name that was found; a key may list several names with commas.

    ``definitions`` are by their names in lower case, without underscores and what is before a dot.
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
    """Return the hints that ship; they are read when the first message needs one."""
    text = files("harness.specs").joinpath(FILE).read_text(encoding="utf-8")
    return validate(parse(text, f"specs/{FILE}"), Hints)


def hints_of(folders: Iterable[Path]) -> Hints:
    """Return the hints of folders, the first of which counts, and those that ship.

    Raises:
        SpecError: a file of hints is wrong.
    """
    found = dict(shipped_hints())
    for folder in reversed(tuple(folders)):
        if (folder / FILE).exists():
            for section, hints in validate(load(folder / FILE), Hints):
                found[section] = found[section] | hints
    return Hints.model_construct(**found)
