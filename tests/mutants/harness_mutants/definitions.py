"""Faults of meaning, as data: one fault a row of ``altered/*.yaml``.

In the definition that a row names, each text on the left is replaced by that on the right; the
backend runs the program that comes of it instead of the one that it was given. ``check`` is the
finding that must differ on ``lesson6/SPEC``; in float32, where it is hardest, unless ``dtypes``
says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import yaml

from harness.program.ir import Program, UpdateRule
from harness.runtime.session import Session
from harness.spec.library import FOLDERS
from harness.spec.model import Spec, load_spec
from harness_mutants.registry import FLOAT32, Faulty, Mutant, register


def altered(kind: str, name: str, replace: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """A definition's text with every key of ``replace`` turned into its value, in order."""
    source = files("harness.specs").joinpath(f"{FOLDERS[kind]}/{name}.yaml")
    text = source.read_text(encoding="utf-8")
    for old, new in replace.items():
        if old not in text:
            raise ValueError(f"{kind} {name} does not say {old!r}")
        text = text.replace(old, new)
    return {(kind, name): text}


class Misread(Session):
    """Runs altered definitions."""

    spec: Spec

    def __init__(
        self, backend: Faulty, training: Program, inference: Program, **choices: Any
    ) -> None:
        sizes = {n: training.sizes[n] for n in self.spec.model.sizes}
        programs = (self.spec.program("training", **sizes), self.spec.program("inference", **sizes))
        super().__init__(backend, *programs, **choices)

    def use_rule(self, rule: UpdateRule | None, claim: bool = True) -> None:
        super().use_rule(rule and self.spec.rule(rule.name, **rule.attributes), claim)


def _maker(model: str, row: Mapping[str, Any]) -> Callable[[], Faulty]:
    def make() -> Faulty:
        text = altered(row["kind"], row["definition"], row["replace"])

        class Altered(Misread):
            spec = load_spec(model, overrides=text)

        return Faulty(Altered)

    return make


def _register_all() -> None:
    for file in sorted(files("harness_mutants").joinpath("altered").iterdir(), key=str):
        for name, row in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            dtypes = tuple(row.get("dtypes", FLOAT32))
            model = f"lesson6/{row['spec']}"
            make = _maker(model, row)
            register(Mutant(name, row["summary"], model, row["check"], dtypes, make))


_register_all()
