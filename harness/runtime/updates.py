"""The equations of an optimizer, run for every variable of a session. No other module runs them.

If the framework runs a layer, its variables are packed: one tensor holds several parameters.
Elementwise equations give the same result on packed tensors. But a rule may reduce a whole
parameter to one number, or treat some parameters differently. Then the tensors are unpacked before
the update and packed again after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.program.builder import Builder
from harness.program.clipping import clipping
from harness.program.dims import Dim
from harness.program.ir import Node, Port, Type, needed_nodes
from harness.program.updates import (
    FIRST,
    GOOD,
    SCALE,
    UpdateRule,
    at_shape,
    by_parameter,
    by_rank,
    slot_shapes,
    with_loss_scaling,
)
from harness.runtime import promises
from harness.runtime.backend import Backend
from harness.runtime.interpreter import Interpreter, NodeCache, Table, perform
from harness.runtime.native import Function, GradientFunction, Layout, NativeOptimizer, Tensors

# The name of the step number (from 1), which an optimizer's equations may use.
STEP = "step"
RATE = "learning_rate"
Values = dict[int, Any]
MakeInterpreter = Callable[[Mapping[str, int]], Interpreter]


def initial_slots(rule: UpdateRule, parameters: Arrays) -> dict[str, ArrayDict]:
    """Return a dictionary from each optimizer slot (e.g. ``m``) to the slot's initial value for
    each parameter of the spec."""
    shapes = slot_shapes(rule, {n: a.shape for n, a in parameters.items()})
    return {
        port.name: {
            n: _initial_slot(
                _slot_port(rule.of(n, len(parameters[n].shape)), port.name), shape, parameters[n]
            )
            for n, shape in shapes[port.name].items()
        }
        for port in rule.every_slot
        if port.name in shapes
    }


def _slot_port(rule: UpdateRule, name: str) -> Port:
    return next(port for port in rule.slots if port.name == name)


def _initial_slot(slot: Port, shape: tuple[int, ...], parameter: Array) -> Array:
    law = slot.init or {}
    if "parameter" in law:
        return np.array(parameter)
    number = law["constant"]["value"] if law else 0.0
    return np.full(shape, number, parameter.dtype)


def steps_made(following: Array) -> int:
    """Return the number of steps that the optimizer has made, given ``following``, the number of
    its next step."""
    return int(following) - 1


def claimable(rule: UpdateRule, layout: Layout) -> bool:
    """Return whether a framework's own optimizer could run instead of a rule's equations. It can if
    all of the following are true:

    - The rule is the same for all parameters, and its attributes are constant.
    - Its slots are the slots of the optimizer's definition, in the shapes of the parameters.
    - The update of an entry does not depend on other entries of its parameter. Or no packed tensor
      holds several parameters.
    """
    if rule.groups or rule.varying or rule.added or by_rank(rule):
        return False
    return not (by_parameter(rule) and layout.joined)


def claimed(backend: Backend, rule: UpdateRule, layout: Layout) -> NativeOptimizer | None:
    """Return the framework's own optimizer that the backend offers for a rule; return None if there
    is none.

    Raises:
        ContractError: the backend returned another object, or an optimizer that clips gradients
            although the model does not.
    """
    if not claimable(rule, layout):
        return None
    optimizer = backend.claim_optimizer(rule.by_meaning())
    if optimizer is not None:
        expected = "a NativeOptimizer, or None"
        promises.check_type(optimizer, NativeOptimizer, "claim_optimizer()", expected)
        if optimizer.clips and clipping(rule) is None:
            raise promises.ContractError(
                f"{optimizer.label} clips gradients, but the model does not"
            )
    return optimizer


def without_clipping(rule: UpdateRule, optimizer: NativeOptimizer | None) -> UpdateRule:
    """Return a rule without its equations for clipping if the framework's own ``optimizer`` clips
    gradients; otherwise return the rule unchanged."""
    return replace(rule, fed=None, totals=()) if optimizer and optimizer.clips else rule


class Update:
    """An optimizer's update rule, applied to all trained variables of a session, i.e. the packed
    tensors of a ``layout``.

    Slots are packed like variables. If the rule has different equations for matrices, each slot has
    one array per parameter of the spec instead, because not all parameters have the same slots.
    ``interpreter`` makes an interpreter for given sizes. ``table`` has the primitives.
    """

    def __init__(
        self, rule: UpdateRule, layout: Layout, table: Table, interpreter: MakeInterpreter
    ) -> None:
        self.rule, self.layout, self.table = rule, layout, table
        self.interpreter = interpreter
        self.apart = by_parameter(rule) and bool(layout.claimed)
        self._rules = {n: rule.of(n, len(shape)) for n, shape in layout.shapes.items()}
        shapes = slot_shapes(rule, layout.shapes)
        names = [port.name for port in rule.every_slot] if by_rank(rule) else []
        # For slots that are kept per parameter: their shapes, by slot and parameter.
        self.own_slots = {name: shapes.get(name, {}) for name in names}
        self._node_cache = NodeCache()
        fed_values = [v for v in (rule.rate, rule.fed) if v is not None]
        # Whether the rule's equations change the gradient or learning rate of a claimed optimizer.
        self.feeds = bool(fed_values)
        self._feeding = needed_nodes(rule.nodes, fed_values)

    def packed(self, slots: Mapping[str, Arrays]) -> dict[str, Arrays]:
        """Convert slots that have one array per parameter of the spec. The result has one array per
        variable (a packed tensor)."""
        packed: dict[str, Arrays] = {}
        for slot, neutral in slots.items():
            arrays = neutral if slot in self.own_slots else self.layout.pack(neutral)
            packed[slot] = {n: a for n, a in arrays.items() if n not in self.layout.frozen}
        return packed

    def unpacked(self, slot: str, arrays: Arrays) -> ArrayDict:
        """Convert a slot that has one array per variable (a packed tensor). The result has one
        array per parameter of the spec. This is the reverse of :meth:`packed`."""
        return dict(arrays) if slot in self.own_slots else self.layout.unpack(arrays)

    def run(self, variables: Tensors, constants: Tensors) -> Tensors:
        """Compute the optimizer's update of all variables.

        ``constants`` has, for each variable NAME, ``gradient.NAME`` and ``SLOT.NAME`` for each
        slot, and also ``step`` and ``learning_rate``. The results are ``parameter.NAME`` and
        ``SLOT.NAME``.
        """
        names = [port.name for port in self.rule.every_slot]
        groups = {"parameter": variables}
        for group in ("gradient", *names):
            names_of_group = self.own_slots.get(group, variables)
            groups[group] = {n: constants[f"{group}.{n}"] for n in names_of_group}
        values = self._initial_values(groups, constants)
        results: dict[str, Tensors] = {group: {} for group in ("parameter", *names)}
        # Free the intermediate values of each parameter before the next one's equations run.
        for name in tuple(values):
            rule = self._rule_of(name)
            env = self._run(rule, rule.nodes, values.pop(name))
            results["parameter"][name] = env[rule.new_parameter]
            for slot in rule.new_slots:
                results[slot.name][name] = env[slot.value]
        return {
            f"{group}.{name}": tensor
            for group, tensors in results.items()
            for name, tensor in self._pack_if_apart(group, tensors).items()
        }

    def fed(self, variables: Tensors, constants: Tensors) -> Tensors:
        """Return the gradients by name, and the ``learning_rate``, to pass to the framework's own
        optimizer.

        The rule's equations for clipping, and for a learning-rate schedule, are applied to them.
        """
        rule = self.rule
        groups = {"parameter": variables}
        groups["gradient"] = {n: constants[f"gradient.{n}"] for n in variables}
        values = self._initial_values(groups, constants)
        rate, gradients = constants[RATE], {}
        for name, env in values.items():
            env = self._run(rule, self._feeding, env)
            gradients[name] = env[rule.gradient if rule.fed is None else rule.fed]
            rate = rate if rule.rate is None else env[rule.rate]
        return {**self._pack_if_apart("gradient", gradients), RATE: rate}

    def _initial_values(
        self, groups: Mapping[str, Tensors], constants: Tensors
    ) -> dict[str, Values]:
        """Return for each parameter the values with which its equations start, by value number.

        They include sums over all parameters, such as the global norm. ``groups`` has the tensors
        of the parameters, gradients and slots.
        """
        apart = {group: self._unpack_if_apart(group, tensors) for group, tensors in groups.items()}
        values_by_name: dict[str, Values] = {}
        for name, tensor in apart["parameter"].items():
            rule = self._rule_of(name)
            env = {rule.parameter: tensor, rule.gradient: apart["gradient"][name]}
            env |= {rule.step: constants[STEP], rule.learning_rate: constants[RATE]}
            env |= {p.value: apart[p.name][name] for p in rule.slots if p.name in apart}
            values_by_name[name] = env
        for number in range(len(self.rule.totals)):
            self._add_total(number, values_by_name)
        return values_by_name

    def _add_total(self, number: int, values: Mapping[str, Values]) -> None:
        total_value = None
        for name, env in values.items():
            total = self._rule_of(name).totals[number]
            self._run(self._rule_of(name), total.nodes, env)
            part = env[total.part]
            total_value = (
                part if total_value is None else perform(self.table, "add", [total_value, part])
            )
        for name, env in values.items():
            env[self._rule_of(name).totals[number].value] = total_value

    def _run(self, rule: UpdateRule, nodes: tuple[Node, ...], env: Values) -> Values:
        shape = tuple(env[rule.parameter].shape)
        prepared = self._node_cache.get(
            (id(nodes), shape),  # the nodes live as long as the rule, so the id stays unique
            lambda: (self.interpreter({"entries": prod(shape)}), at_shape(rule, nodes, shape)),
        )
        return prepared.run(env)

    def _rule_of(self, name: str) -> UpdateRule:
        return self._rules.get(name, self.rule)

    def _unpack_if_apart(self, group: str, tensors: Tensors) -> Tensors:
        is_packed = self.apart and group not in self.own_slots
        return self.layout.unpacked(self.table, tensors) if is_packed else tensors

    def _pack_if_apart(self, group: str, tensors: Tensors) -> Tensors:
        is_packed = self.apart and group not in self.own_slots
        return self.layout.packed(self.table, tensors) if is_packed else tensors


# Loss scaling of a session in float16: see :mod:`harness.program.updates`.


def initial_scaling(scalar: Callable[[float], Any]) -> Tensors:
    """Return the tensors of the loss scale before the first step. ``scalar`` converts a number to a
    tensor."""
    return {SCALE: scalar(FIRST), GOOD: scalar(0.0)}


def scaled(function: Function, table: Table) -> Function:
    """Return a function like ``function``, whose result ``scalar`` (usually the loss) is multiplied
    by the loss scale. The loss scale is one of the function's constants."""

    def run(variables: Tensors, constants: Tensors) -> Tensors:
        results = function(variables, constants)
        scalar = perform(table, "multiply", [results["scalar"], constants[SCALE]])
        return {**results, "scalar": scalar}

    return run


def unscaled(function: GradientFunction, table: Table) -> GradientFunction:
    """Return a function like ``function``, whose gradients are divided by the loss scale."""

    def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
        results, gradients = function(variables, constants)
        scale = constants[SCALE]
        return results, {n: perform(table, "divide", [g, scale]) for n, g in gradients.items()}

    return run


def finish_scaled_step(
    interpreter: Interpreter, gradients: Tensors, before: Tensors, updated: Tensors
) -> tuple[Tensors, Tensors]:
    """Return two dictionaries of tensors: the values after a step, including the number of the next
    step, and the new loss scale.

    If a gradient is NaN or infinite, the step is skipped; see
    :func:`harness.program.updates.with_loss_scaling`. ``before`` and ``updated`` are the values
    before and after the update.
    """
    builder, values = Builder(), {}

    def numbered(tensors: Tensors) -> dict[str, int]:
        results = {}
        for name, tensor in tensors.items():
            results[name] = builder.value(Type(tuple(map(Dim.of, tensor.shape))))
            values[results[name]] = tensor
        return results

    numbers_before = numbered(before)
    after = numbered(updated) | {
        STEP: builder.emit("add", numbers_before[STEP], builder.constant(1.0))
    }
    ports = with_loss_scaling(builder, numbered(gradients), numbers_before, after)
    interpreter.run(builder.nodes, values)
    results = {name: values[value] for name, value in ports.items()}
    return results, {name: results.pop(name) for name in (SCALE, GOOD)}
