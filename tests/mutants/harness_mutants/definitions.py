"""Faults of meaning, as data: ``definitions.yaml`` replaces text in the definitions that ship.

The backend runs the program of the altered definition instead of the one that it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import yaml

from harness.program import Program, UpdateRule
from harness.session import Session
from harness.spec.library import FOLDERS
from harness.spec.lower import Spec, load_spec
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

    def use_rule(self, rule: UpdateRule | None) -> None:
        super().use_rule(rule and self.spec.rule(rule.name, **rule.attributes))


def _maker(model: str, row: Mapping[str, Any]) -> Callable[[], Faulty]:
    def make() -> Faulty:
        text = altered(row["kind"], row["definition"], row["replace"])

        class Altered(Misread):
            spec = load_spec(model, overrides=text)

        return Faulty(Altered)

    return make


def _register_all() -> None:
    text = files("harness_mutants").joinpath("definitions.yaml").read_text(encoding="utf-8")
    for name, row in yaml.safe_load(text).items():
        dtypes = tuple(row.get("dtypes", FLOAT32))
        model = f"lesson6/{row['spec']}"
        make = _maker(model, row)
        register(Mutant(name, row["summary"], model, row["check"], dtypes, make))


_register_all()
