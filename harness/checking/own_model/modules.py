"""Comparison of a user's model with a spec, module by module.

A unit is a part of the model that computes a layer call of the spec: a module that has the layer's
weights, or several modules with these weights. The comparison follows the order in which the model
runs its modules. It names the first unit whose input or output differs from the spec's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from harness.arrays import Array
from harness.checking.own_model.spec_values import SpecValues
from harness.program.ir import Node, reads
from harness.program.signature import call_key, owner_of
from harness.runtime.answers import RecordedCall, RecordedModules

Status = Literal["right", "wrong", "unknown"]


@dataclass(frozen=True)
class Unit:
    """A part of the user's model and the layer calls that it computes: it starts with the call
    ``first`` of a module and ends with the call ``last``, and computes the layer calls from
    ``reads`` to ``makes``."""

    first: RecordedCall
    last: RecordedCall
    reads: Node
    makes: Node

    @property
    def name(self) -> str:
        """The names of the modules."""
        names = dict.fromkeys((self.first["module"], self.last["module"]))
        return " to ".join(names)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the spec."""
        return tuple(dict.fromkeys((call_key(self.reads), call_key(self.makes))))

    def __str__(self) -> str:
        return f"{self.name} (spec: {' to '.join(self.layers)})"


@dataclass(frozen=True)
class Event:
    """The input or the output of a module's call, compared with the spec. ``time`` is its place in
    the order of all events. ``module`` is the module's name, with the layer's name if the module
    has a counterpart in the spec. If the event is wrong, ``value`` is the spec's value, ``error``
    the difference, and ``found`` the value that the module has instead, if the spec has such a
    value."""

    time: int
    is_input: bool
    status: Status
    module: str
    unit: Unit | None = None
    value: int = -1
    error: float = 0.0
    array: str = ""
    found: int | None = None


class ModuleMatch:
    """The units of a model: which module computes which layer call of the spec.

    ``time`` is the number of time steps of the pass. ``uncalled`` maps the layers whose modules the
    model never calls to the names of these modules.
    """

    def __init__(self, recorded: RecordedModules, layer_calls: Sequence[Node], time: int) -> None:
        self.recorded, self.time = recorded, time
        self.calls: dict[str, list[RecordedCall]] = {}
        for call in recorded["calls"]:
            self.calls.setdefault(call["module"], []).append(call)
        self.layers: dict[str, list[Node]] = {}
        for node in layer_calls:
            self.layers.setdefault(call_key(node), []).append(node)
        self.owners = recorded["weights"]
        self.uncalled: dict[str, str] = {}
        self.units = list(self._find_units())

    @cached_property
    def weights(self) -> dict[str, frozenset[str]]:
        """The spec's weights in each module, including the modules inside it."""
        every: dict[str, set[str]] = {}
        for module, names in self.owners.items():
            parts = module.split(".") if module else []
            for count in range(len(parts) + 1):
                every.setdefault(".".join(parts[:count]), set()).update(names)
        return {module: frozenset(names) for module, names in every.items()}

    def _find_units(self) -> Iterator[Unit]:
        weights: dict[str, set[str]] = {}
        for name in frozenset().union(*self.weights.values()):
            layer = owner_of(name)
            while layer and layer not in self.layers:  # e.g. the weight attend.out_proj.weight
                layer = owner_of(layer)
            weights.setdefault(layer, set()).add(name)
        for layer, nodes in self.layers.items():
            module = self.recorded["named"].get(layer)
            if own := weights.get(layer):
                yield from self._find_layer(layer, nodes, own)
            elif module is not None:
                yield from self._pair(nodes, [self.calls[module]] * 2)
        yield from self._find_stacks(weights)

    def _find_layer(self, layer: str, nodes: Sequence[Node], own: set[str]) -> Iterator[Unit]:
        exact = [module for module, names in self.weights.items() if names == own]
        direct = [module for module in exact if module in self.owners]
        outer = [[module] for module in exact if module not in self.owners]
        sequences = [self._calls_of(modules) for modules in (direct, *outer) if modules]
        if sequences and not any(sequences):
            self.uncalled[layer] = ", ".join(exact)
        parts = [module for module in self.owners if self.weights[module] <= own]
        if exact or not parts:
            for calls in sequences:
                yield from self._pair(nodes, [calls, calls])
            return
        # No single module has these weights: the unit goes from the first module to the last.
        each = [self.calls[module] for module in parts if module in self.calls]
        if not each:
            self.uncalled[layer] = ", ".join(parts)
            return
        first = min(each, key=lambda calls: calls[0]["start"])
        last = max(each, key=lambda calls: calls[-1]["end"])
        yield from self._pair(nodes, [first, last])

    def _pair(
        self, nodes: Sequence[Node], ends: Sequence[Sequence[RecordedCall]]
    ) -> Iterator[Unit]:
        """Yield the units of a layer: its first call in the spec is the first call of its module,
        etc. ``ends`` are the calls in which the units start, and the calls in which they end. A
        module that is called once per time step computes one call of its layer."""
        if all(len(calls) == self.time for calls in ends) and len(nodes) == 1 < self.time:
            ends = [[self._join_steps(calls)] for calls in ends]
        if all(len(calls) <= len(nodes) for calls in ends):
            for node, first, last in zip(nodes, *ends, strict=False):
                yield Unit(first, last, node, node)

    def _join_steps(self, calls: Sequence[RecordedCall]) -> RecordedCall:
        """Return the calls of all time steps as one call, whose arrays have a time axis."""
        arrays = self.recorded["arrays"]

        def join(names_by_step: Sequence[Sequence[str]]) -> list[str]:
            joined = []
            for names in zip(*names_by_step, strict=False):
                steps = [arrays[name] for name in names]
                if steps[0].ndim and len({step.shape for step in steps}) == 1:
                    joined.append(" ".join(names))
                    arrays[joined[-1]] = np.stack(steps, 1)
            return joined

        inputs = join([call["inputs"] for call in calls])
        outputs = join([call["outputs"] for call in calls])
        return {**calls[0], "end": calls[-1]["end"], "inputs": inputs, "outputs": outputs}

    def _calls_of(self, modules: Sequence[str]) -> list[RecordedCall]:
        calls = [call for module in modules for call in self.calls.get(module, ())]
        return sorted(calls, key=lambda call: call["start"])

    def _find_stacks(self, weights: Mapping[str, set[str]]) -> Iterator[Unit]:
        """Yield the modules that compute several layers, such as a ``torch.nn.LSTM`` with two
        layers."""
        for module in self.owners:
            layers = [n for n, own in weights.items() if own & self.weights[module]]
            nodes = [
                node for layer in self.layers for node in self.layers[layer] if layer in layers
            ]
            union = set().union(*(weights[layer] for layer in layers))
            calls = self.calls.get(module, [])
            if len(layers) > 1 and union == self.weights[module] and len(calls) == 1:
                yield Unit(calls[0], calls[0], nodes[0], nodes[-1])


class ModuleComparison:
    """The comparison of a pass of the user's model with the spec's values, as events in order."""

    def __init__(self, values: SpecValues, recorded: RecordedModules) -> None:
        self.values, self.arrays = values, recorded["arrays"]
        self.ports = {p.value for p in (*values.program.parameters, *values.program.statistics)}
        layer_calls = [n for n in values.program.calls if n.attributes["kind"] == "layer"]
        self.match = ModuleMatch(recorded, layer_calls, values.time)
        self._found: dict[str, int | None] = {}
        events = [*self._compare_units(), *self._search_calls(recorded["calls"])]
        self._observed = {event.value for event in events if event.status == "right"}
        self.right = self.values.sources(self._observed)
        self.events: list[Event] = []
        self.first_wrong: Event | None = None
        for event in sorted(events, key=lambda e: (e.time, e.unit is None)):
            if event.status == "wrong" and self.first_wrong is None:
                if self._is_harmless(event):
                    continue
                self.first_wrong = event
            self.events.append(event)

    def _is_harmless(self, event: Event) -> bool:
        """Return whether later values are right although they depend on this value. The module then
        computes the layer in a different form, e.g. without its activation. A later value proves
        nothing if it would also be right with the wrong value, e.g. because its weights are
        small."""
        assert event.unit is not None
        values = event.unit.makes.outputs if event.is_input else (event.value,)
        if not self.right.issuperset(values):
            return False
        if self.values.error(self.arrays[event.array], event.value) is None:
            return True  # the shapes differ
        changed = {event.value: self.values.arrange(self.arrays[event.array], event.value)}
        if event.is_input:  # other layers may get the right value
            changed = self.values.recompute(values, changed)
        return self._is_visible(changed)

    def _is_visible(self, changed: Mapping[int, Array]) -> bool:
        """Return whether a value that is right in the model would be wrong after arrays replace
        some values."""
        later = self.values.recompute(self._observed, changed)
        return not all(self.values.agrees(array, value) for value, array in later.items())

    def is_computed(self, node: Node) -> bool:
        """Return whether later values are right, and would be wrong without the output of a
        layer."""
        if not self.right.issuperset(node.outputs):
            return False
        zeros = {
            v: np.zeros_like(a)
            for v in node.outputs
            if (a := self.values.arrays.get(v)) is not None
        }
        return not zeros or self._is_visible(zeros)

    def is_right(self, unit: Unit) -> bool:
        """Return whether all inputs of a unit are right. Inputs that depend on weights only do not
        count, nor do masks."""
        expected = self.values.varying.intersection(unit.reads.inputs, self.values.arrays)
        right = {e.value for e in self.events if e.status == "right" and e.unit is unit}
        return bool(expected) and right.issuperset(expected)

    def last_right(self, wrong: Event | None = None) -> Event | None:
        """Return the event with the last value that is known to be right on the way to a wrong
        input, or to the outputs of the model. Values that depend on weights only do not count.

        If several values on the way may be wrong, e.g. those of parallel branches, this is the
        event before the earliest of them.
        """
        right = [
            event
            for event in self.events
            if event.status == "right"
            and event.value in self.values.varying
            and (wrong is None or event.time < wrong.time)
        ]
        if wrong is None or not right:
            return right[-1] if right else None
        # The spec may have the same numbers several times, e.g. in another order of axes.
        times = {self.values.first_equal(event.value): event.time for event in right}
        known = self.values.sources(event.value for event in right)
        between = {
            value
            for value in self.values.sources([wrong.value]) - known
            if self.values.first_equal(value) not in times
        }
        starts = [
            max(times[value] for value in inputs if value in times)
            for node in self.values.nodes
            if not between.isdisjoint(node.outputs)
            and between.isdisjoint(reads(node))
            and not times.keys().isdisjoint(inputs := [*map(self.values.first_equal, reads(node))])
        ]
        time = min(starts, default=right[-1].time)
        return [event for event in right if event.time == time][-1]

    def _find(self, name: str) -> int | None:
        if name not in self._found:
            self._found[name] = self.values.find(self.arrays[name])
        return self._found[name]

    def _search_calls(self, calls: Sequence[RecordedCall]) -> Iterator[Event]:
        """Yield the outputs of all modules, and whether the spec has the same values."""
        for call in calls:
            values = [v for name in call["outputs"] if (v := self._find(name)) is not None]
            for value in values:
                if value in self.values.varying:
                    yield Event(call["end"], False, "right", call["module"], value=value)
            if not values:
                yield Event(call["end"], False, "unknown", call["module"])

    def _compare_units(self) -> Iterator[Event]:
        for unit in self.match.units:
            reads = [v for v in unit.reads.inputs if v not in self.ports]
            time = unit.first["start"]
            yield from self._compare(unit, time, True, reads, unit.first["inputs"])
            yield from self._compare_output(unit)

    def _compare_output(self, unit: Unit) -> Iterator[Event]:
        """Compare the output of a unit. A module may compute only a part of its layer, e.g. the
        layer without its activation, so the output may also be a value inside the layer."""
        time, names = unit.last["end"], unit.last["outputs"]
        inner = self.values.inner_values(unit.makes)
        found = [self.values.find(self.arrays[name], inner) for name in names]
        right = [value for value in found if value is not None]
        for value in right:
            yield Event(time, False, "right", str(unit), unit, value)
        if right:
            return
        events = list(self._compare(unit, time, False, unit.makes.outputs, names))
        if not events:
            parts = [self._compare(unit, time, False, [value], names[:1]) for value in inner]
            events = sorted((e for part in parts for e in part), key=lambda e: e.error)[:1]
        if not events and names:
            events = self._compare_shape(unit, time, names[0])
        yield from events

    def _compare_shape(self, unit: Unit, time: int, name: str) -> list[Event]:
        """Compare the shape of an output that has the same number of axes as the spec's value."""
        value = unit.makes.outputs[0]
        expected = self.values.arrays.get(value)
        if expected is None or expected.ndim != self.arrays[name].ndim:
            return []
        return [Event(time, False, "wrong", str(unit), unit, value, math.inf, name)]

    def _compare(
        self, unit: Unit, time: int, is_input: bool, expected: Sequence[int], names: Sequence[str]
    ) -> Iterator[Event]:
        """Compare a module's arrays with the spec's values. Arrays that have one of the values are
        not compared with the others."""
        agreeing = {
            value: name
            for value in expected
            for name in names
            if self.values.agrees(self.arrays[name], value)
        }
        free = [name for name in names if name not in agreeing.values()]
        for value in expected:
            if value in agreeing:
                yield Event(time, is_input, "right", str(unit), unit, value)
                continue
            errors = [
                (e, n) for n in free if (e := self.values.error(self.arrays[n], value)) is not None
            ]
            if errors:
                error, name = min(errors)
                found = self._find(name)
                yield Event(time, is_input, "wrong", str(unit), unit, value, error, name, found)

    @property
    def compared(self) -> int:
        """The number of layer calls of the spec that were compared with a module."""
        return len({id(e.unit.makes) for e in self.events if e.unit is not None})
