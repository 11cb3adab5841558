"""An optimizer's equations for every variable of a session: the one place where they are run.

Variables are packed where a layer is claimed, several parameters in one tensor. Entry by entry
that is all the same; where a rule makes one number of a whole parameter, or has another attribute
for one, tensors are taken apart for it, and put together again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.program.ir import Node, Port, UpdateRule, needed_nodes
from harness.program.updates import at_shape, by_parameter
from harness.runtime.interpreter import Interpreter, Table, perform
from harness.runtime.kept_nodes import KeptNodes
from harness.runtime.layout import Layout
from harness.runtime.native import Tensors
from harness.runtime.tensor_packing import packed, unpacked

# The number of the step, from 1, which the equations of an optimizer may ask for.
STEP = "step"
RATE = "learning_rate"
Values = dict[int, Any]
MakeInterpreter = Callable[[Mapping[str, int]], Interpreter]


def started(rule: UpdateRule, parameters: Arrays) -> dict[str, ArrayDict]:
    """What every slot starts as, by slot and neutral parameter."""
    return {
        port.name: {n: _start(rule.of(n).slots[i], a) for n, a in parameters.items()}
        for i, port in enumerate(rule.slots)
    }


def _start(slot: Port, parameter: Array) -> Array:
    law = slot.init or {}
    if "parameter" in law:
        return np.array(parameter)
    number = law["constant"]["value"] if law else 0.0
    return np.full_like(parameter, number)


def steps_made(following: Array) -> int:
    """How many steps the optimizer has made, by the number of the step that follows."""
    return int(following) - 1


def claimable(rule: UpdateRule, layout: Layout) -> bool:
    """Whether a framework's own optimizer can stand for a rule: one for all parameters, whose
    attributes stay what they are from step to step, which keeps what the definition keeps, and over
    no tensor of several parameters where it matters which entries are those of one."""
    if rule.groups or rule.varying or rule.added:
        return False
    return not (by_parameter(rule) and layout.joined)


def feeds(rule: UpdateRule | None) -> bool:
    """Whether the model makes another gradient or learning rate before the definition reads it."""
    return rule is not None and (rule.fed is not None or rule.rate is not None)


class Update:
    """A rule over the variables of a layout.

    ``interpreter`` makes one for sizes, in which ``table`` holds the primitives.
    """

    def __init__(
        self, rule: UpdateRule, layout: Layout, table: Table, interpreter: MakeInterpreter
    ) -> None:
        self.rule, self.layout, self.table = rule, layout, table
        self.interpreter = interpreter
        self.apart = by_parameter(rule) and bool(layout.claimed)
        self._kept_nodes = KeptNodes()
        wanted = [v for v in (rule.rate, rule.fed) if v is not None]
        self._feeding = needed_nodes(rule.nodes, wanted)

    def run(self, variables: Tensors, constants: Tensors) -> Tensors:
        """From ``gradient.NAME``, ``SLOT.NAME``, ``step`` and ``learning_rate`` to
        ``parameter.NAME`` and ``SLOT.NAME``."""
        names = [port.name for port in self.rule.slots]
        groups = {"parameter": variables}
        for group in ("gradient", *names):
            groups[group] = {n: constants[f"{group}.{n}"] for n in variables}
        values = self._values(groups, constants)
        made: dict[str, Tensors] = {group: {} for group in ("parameter", *names)}
        # What one parameter's equations make on the way is not held until the last one's are run.
        for name in tuple(values):
            rule = self.rule.of(name)
            env = self._run(rule, rule.nodes, values.pop(name))
            made["parameter"][name] = env[rule.new_parameter]
            for slot in rule.new_slots:
                made[slot.name][name] = env[slot.value]
        return {
            f"{group}.{name}": tensor
            for group, tensors in made.items()
            for name, tensor in self._together(tensors).items()
        }

    def fed(self, variables: Tensors, constants: Tensors) -> Tensors:
        """What a claimed optimizer is given of ``gradient.NAME``, by name, and ``learning_rate``
        where the model has a schedule."""
        rule = self.rule
        groups = {"parameter": variables}
        groups["gradient"] = {n: constants[f"gradient.{n}"] for n in variables}
        values = self._values(groups, constants)
        rate, gradients = constants[RATE], {}
        for name, env in values.items():
            env = self._run(rule, self._feeding, env)
            gradients[name] = env[rule.gradient if rule.fed is None else rule.fed]
            rate = rate if rule.rate is None else env[rule.rate]
        return {**self._together(gradients), RATE: rate}

    def _values(self, groups: Mapping[str, Tensors], constants: Tensors) -> dict[str, Values]:
        """By parameter, the values that its equations begin with, with all totals."""
        apart = {group: self._apart(tensors) for group, tensors in groups.items()}
        found: dict[str, Values] = {}
        for name, tensor in apart["parameter"].items():
            rule = self.rule.of(name)
            env = {rule.parameter: tensor, rule.gradient: apart["gradient"][name]}
            env |= {rule.step: constants[STEP], rule.learning_rate: constants[RATE]}
            env |= {p.value: apart[p.name][name] for p in rule.slots if p.name in apart}
            found[name] = env
        for number in range(len(self.rule.totals)):
            self._add_total(number, found)
        return found

    def _add_total(self, number: int, values: Mapping[str, Values]) -> None:
        whole = None
        for name, env in values.items():
            total = self.rule.of(name).totals[number]
            self._run(self.rule.of(name), total.nodes, env)
            part = env[total.part]
            whole = part if whole is None else perform(self.table, "add", [whole, part])
        for name, env in values.items():
            env[self.rule.of(name).totals[number].value] = whole

    def _run(self, rule: UpdateRule, nodes: tuple[Node, ...], env: Values) -> Values:
        shape = tuple(env[rule.parameter].shape)
        prepared = self._kept_nodes.get(
            (id(nodes), shape),  # which live as long as the rule
            lambda: self.interpreter({"entries": prod(shape)}),
            lambda: at_shape(nodes, rule.types, shape),
        )
        return prepared.run(env)

    def _apart(self, tensors: Tensors) -> Tensors:
        return unpacked(self.layout, self.table, tensors) if self.apart else tensors

    def _together(self, tensors: Tensors) -> Tensors:
        return packed(self.layout, self.table, tensors) if self.apart else tensors
