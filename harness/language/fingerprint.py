"""The meaning of a spec as one checksum: weights and records are of that, not of a text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from harness.language.model import Spec
from harness.program.ir import Node, Program
from harness.program.updates import UpdateRule

# What is not in a program's meaning: the model's name, numbers that the arrays decide, places in
# files, and the names of values, for messages; those of inputs and outputs are in the ports. What
# definitions mean is in the nodes themselves.
PROSE = {
    Program: {"name", "sizes", "names", "structural", "room"},
    Node: {"place"},
    UpdateRule: {"meaning"},
}

# What came later, and is told only where it says something: what is older keeps its checksum.
LATER: Mapping[type, set[str]] = {
    UpdateRule: {"totals", "rate", "fed", "varying", "groups", "added", "matrices"}
}


def fingerprint(spec: Spec) -> str:
    """The sha256 (hex) of what a spec means.

    That is its programs at both phases, with the laws of the initial values and the loss, and its
    optimizer; not its sizes, comments and prose, nor the names of values inside a definition.
    """
    meaning = _meaning([spec.programs["training"], spec.programs["inference"], spec.update])
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def _meaning(value: Any) -> Any:
    """A program, or a part of one, as JSON: all but its prose, with maps in any order."""
    if is_dataclass(value) and not isinstance(value, type):
        told = [f.name for f in fields(value) if f.name not in PROSE.get(type(value), ())]
        later = LATER.get(type(value), ())
        told = [n for n in told if n not in later or getattr(value, n) not in (None, (), {})]
        if isinstance(value, Node) and "meaning" in value.attributes:
            rest = {n: a for n, a in value.attributes.items() if n != "meaning"}
            value = replace(value, attributes=rest)
        return [type(value).__name__, *(_meaning(getattr(value, name)) for name in told)]
    if isinstance(value, Mapping):
        return {str(key): _meaning(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_meaning(item) for item in value]
    return value
