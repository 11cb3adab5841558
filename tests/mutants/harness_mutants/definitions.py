"""Faults in definitions: each entry of ``altered/*.yaml`` describes one mutant.

An entry names a definition and replaces texts in it. The mutant runs the altered program instead of
the given program. ``check`` is the check that must report a difference on ``lesson6/SPEC``. The
dtype is float32, in which faults are hardest to detect, unless the entry has ``dtypes``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.resources import files
from typing import Any

import yaml

from harness.language.library import FOLDERS
from harness.language.model import Spec, load_spec
from harness.program.ir import Node, Phase, Program, walk_nodes
from harness.program.signature import call_key
from harness.program.updates import UpdateRule
from harness.runtime.session import Session
from harness_mutants.registry import FLOAT32, ODD, Faulty, Mutant, model_of, register


def altered_text(kind: str, name: str, replace: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Return a definition's text after replacing each key of ``replace`` by its value, in order.

    Raises:
        ValueError: the definition does not contain a key.
    """
    source = files("harness.specs").joinpath(f"{FOLDERS[kind]}/{name}.yaml")
    text = source.read_text(encoding="utf-8")
    for old, new in replace.items():
        if old not in text:
            raise ValueError(f"{kind} {name} does not say {old!r}")
        text = text.replace(old, new)
    return {(kind, name): text}


class AlteredDefinitions(Session):
    """A session that runs altered definitions."""

    spec: Spec

    def __init__(
        self, backend: Faulty, training: Program, inference: Program, **choices: Any
    ) -> None:
        programs = (self._read(training, "training"), self._read(inference, "inference"))
        super().__init__(backend, *programs, **choices)

    def _read(self, program: Program, phase: Phase) -> Program:
        """Return the altered program. For a program other than the model, alter its layers only."""
        if not set(self.spec.model.sizes) <= set(program.sizes):
            return program
        own = self.spec.program(phase, **{n: program.sizes[n] for n in self.spec.model.sizes})
        inputs = [port.name for port in own.inputs]
        if inputs == [port.name for port in program.inputs]:
            return own
        return replace_call_bodies(program, own)

    def use_rule(self, rule: UpdateRule | None, claim: bool = True) -> None:
        own = self.spec.update
        if rule is not None and own is not None and own.name == rule.name:
            rule = own  # with the options of the model; each step passes the learning rate
        elif rule is not None:
            rule = self.spec.rule(rule.name, **rule.attributes)
        super().use_rule(rule, claim)


def replace_call_bodies(program: Program, other: Program) -> Program:
    """Return ``program`` with the call bodies of ``other``, matched by name."""
    types, calls = dict(program.types), {call_key(n): n for n in other.calls}
    nodes = []
    for node in program.nodes:
        source = calls.get(call_key(node)) if node.op == "call" else None
        if source is None or len(source.inputs) != len(node.inputs):
            nodes.append(node)
            continue
        ends = ((*source.inputs, *source.outputs), (*node.inputs, *node.outputs))
        new = dict(zip(*ends, strict=True))
        for inner in walk_nodes(source.block.nodes):
            for value in (*inner.outputs, *(inner.body.inputs if inner.body else ())):
                if value not in new:
                    new[value] = len(types)
                    types[new[value]] = other.types[value]
        nodes.append(replace(_renumbered(source, new), attributes=node.attributes))
    return replace(program, types=types, nodes=tuple(nodes))


def _renumbered(node: Node, new: Mapping[int, int]) -> Node:
    def of(values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(new[value] for value in values)

    body = node.body
    if body is not None:
        inner = tuple(_renumbered(part, new) for part in body.nodes)
        body = replace(body, inputs=of(body.inputs), nodes=inner, outputs=of(body.outputs))
    return replace(node, inputs=of(node.inputs), outputs=of(node.outputs), body=body)


def _maker(model: str, row: Mapping[str, Any]) -> Callable[[], Faulty]:
    def make() -> Faulty:
        text = altered_text(row["kind"], row["definition"], row["replace"])

        class Altered(AlteredDefinitions):
            spec = load_spec(str(ODD.get(model, model)), overrides=text)

        return Faulty(Altered)

    return make


def _register_all() -> None:
    for file in sorted(files("harness_mutants").joinpath("altered").iterdir(), key=str):
        for name, row in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            dtypes = tuple(row.get("dtypes", FLOAT32))
            model = model_of(row["spec"])
            make = _maker(model, row)
            told = name, row["summary"], model, row["check"], dtypes, make
            register(Mutant(*told, everywhere=row.get("everywhere", False)))


_register_all()
