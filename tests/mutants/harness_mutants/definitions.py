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
from harness.spec.lower import load_spec
from harness_mutants.registry import BOTH, Faulty, Mutant, register


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

    overrides: Mapping[tuple[str, str], str]

    def __init__(
        self, backend: Faulty, training: Program, inference: Program, **choices: Any
    ) -> None:
        self.spec = load_spec(training.name, overrides=self.overrides)
        sizes = {n: training.sizes[n] for n in self.spec.model.sizes}
        programs = (self.spec.program("training", **sizes), self.spec.program("inference", **sizes))
        super().__init__(backend, *programs, **choices)

    def use_rule(self, rule: UpdateRule | None) -> None:
        super().use_rule(rule and self.spec.rule(rule.name, **rule.attributes))


def _maker(row: Mapping[str, Any]) -> Callable[[str], Faulty]:
    def make(name: str) -> Faulty:
        class Altered(Misread):
            overrides = altered(row["kind"], row["definition"], row["replace"])

        return Faulty(name, Altered)

    return make


def _register_all() -> None:
    text = files("harness_mutants").joinpath("definitions.yaml").read_text(encoding="utf-8")
    for name, row in yaml.safe_load(text).items():
        dtypes = tuple(row.get("dtypes", BOTH))
        register(Mutant(name, row["summary"], row["spec"], row["check"], dtypes, _maker(row)))


_register_all()
