"""The place at which a cell first differs from the oracle: value, layer, equation and time step.
:class:`Expectations` compares the forward pass. :func:`describe_later_phases` then looks at
gradients and updates, because a wrong forward pass makes them wrong too."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.oracle.case import Case
from harness.oracle.oracle import ORDERS, Oracle
from harness.oracle.tolerance import (
    FLOOR,
    PRECISION,
    Deviation,
    K,
    relative_error,
    shape_or_dtype_error,
    worst,
)
from harness.oracle.yardstick import at_least_typical
from harness.program.ir import Phase, Program, reads
from harness.program.signature import call_key, local_of, owner_of
from harness.results.findings import PASSING, Finding
from harness.runtime.answers import Arguments, Misfit
from harness.runtime.precision import host_dtype
from harness.runtime.session import Session, value_places, without_number
from harness.worker.remote import Traced

# A hypothesis is a mistake that a plugin may make when it passes parameters to the framework.


def hypotheses(parameters: ArrayDict) -> Iterator[tuple[str, str, ArrayDict]]:
    """Yield mistakes that a plugin may make when it passes parameters to a framework.

    Each mistake is a tuple: the layer, a description (e.g. "the gates r and z of gru are swapped"),
    and the parameters after this mistake.
    """
    pairs = list(_find_gate_pairs(parameters))
    for layer, first, second, stems in pairs:
        if len(stems) > 1:
            text = f"the gates {first} and {second} of {layer} are swapped"
            yield layer, text, _swap_gates(parameters, layer, first, second, stems)
    for layer, first, second, stems in pairs:
        for stem in stems:
            text = f"{stem}_{first} and {stem}_{second} of {layer} are swapped"
            yield layer, text, _swap_gates(parameters, layer, first, second, [stem])
    for name, array in parameters.items():
        if array.ndim == 2 and array.shape[0] == array.shape[1]:
            layer, local = owner_of(name), local_of(name)
            yield layer, f"{local} of {layer} is transposed", {**parameters, name: array.T}


def _find_gate_pairs(parameters: ArrayDict) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yield pairs of gates of one layer, as tuples: the layer, the first gate, the second gate, and
    name prefixes. A prefix (W, U or b) is included if its parameters have equal shapes in both
    gates, e.g. ``U_r`` and ``U_z``."""
    gates: dict[str, dict[str, list[str]]] = {}
    for name in parameters:
        layer, local = owner_of(name), local_of(name)
        stem, _, gate = local.rpartition("_")
        if stem:
            gates.setdefault(layer, {}).setdefault(gate, []).append(stem)
    for layer, stems in gates.items():
        for first, second in itertools.combinations(stems, 2):
            shapes = {
                stem: {parameters[f"{layer}.{stem}_{gate}"].shape for gate in (first, second)}
                for stem in stems[first]
                if stem in stems[second]
            }
            yield (
                layer,
                first,
                second,
                [stem for stem, shapes_of_gates in shapes.items() if len(shapes_of_gates) == 1],
            )


def _swap_gates(
    parameters: ArrayDict, layer: str, first_gate: str, second_gate: str, stems: Sequence[str]
) -> dict[str, Array]:
    swapped = dict(parameters)
    for stem in stems:
        first, second = f"{layer}.{stem}_{first_gate}", f"{layer}.{stem}_{second_gate}"
        swapped[first], swapped[second] = parameters[second], parameters[first]
    return swapped


# A hypothesis must change a value by more than this many tolerances. Otherwise both the changed and
# the unchanged value could agree with the backend.
DECISIVE = 10.0
# A hint consists of this text and the description of a mistake.
RIGHT_IF = "The result is right if"
FORWARD = ("outputs", "loss", "state", "statistics")
BACKWARD = ("gradients", "cotangent-gradients")
UPDATE = ("training", "training-sgd")


@dataclass(frozen=True, eq=False)
class TracedPart:
    """A value that a backend has computed and recorded, or one time step of it (``step``), with the
    expected value and the tolerance ``allowed``.

    If the shape or dtype is wrong, ``reason`` says so, and no numbers are compared.
    """

    name: str
    step: int | None
    key: tuple[str, int | None]
    index: Any
    actual: Array
    expected: Array
    reason: str = ""
    allowed: float = 0.0

    @property
    def error(self) -> float:
        """The largest error, relative to the largest entry of the expected value."""
        if self.reason:
            return np.inf
        return relative_error(self.actual, self.expected, _largest_entry(self.expected))

    @property
    def agrees(self) -> bool:
        """True if the error is within the tolerance."""
        return self.error <= self.allowed


@dataclass(frozen=True)
class Location:
    """The first wrong value in the order of computation. ``place`` is the ``file:line`` of the
    equation that computes it. ``right_if`` describes a mistake with parameters that would explain
    the value."""

    part: TracedPart
    place: str
    right_if: str = ""

    @property
    def layer(self) -> str:
        """The layer that computes the value; empty if an equation outside of layers computes it."""
        return self.part.name.rpartition("/")[0]

    @property
    def hint(self) -> str:
        """The mistake that would explain the value, as a sentence."""
        return f"{RIGHT_IF} {self.right_if}" if self.right_if else ""

    @property
    def where(self) -> str:
        """The value's name, its layer and its time step, as text."""
        name = self.part.name.rpartition("/")[2]
        step = "" if self.part.step is None else f", time step {self.part.step}"
        return (f"{name} of layer {self.layer}" if self.layer else self.part.name) + step

    def __str__(self) -> str:
        place = f" ({self.place})" if self.place else ""
        how = f", by {self.part.error:.2e}{f'. {self.hint}' if self.hint else ''}"
        if self.part.reason:
            how = f": {self.part.reason}"
        return f"forward: first differs at {self.where}{place}{how}"


Values = Mapping[tuple[str, int | None], Array]


class Expectations:
    """The oracle's intermediate values of a pass, by name and time step, and their rounding noise
    in a dtype. To compare two backends, pass the values of the second backend as ``others``: they
    replace the oracle's values, and the noise is doubled."""

    def __init__(
        self,
        case: Case,
        material: Arguments,
        dtype: str,
        *,
        phase: Phase = "training",
        loss: bool = False,
        others: Values | None = None,
    ) -> None:
        self.case, self.material, self.dtype = case, material, dtype
        self.phase, self.loss = phase, loss
        self.values = self._oracle(material, "float64")
        self._rough = [self._oracle(material, dtype, order) for order in ORDERS]
        self._places = value_places(case.program(phase))
        self._ways = 1.0 if others is None else 2.0
        self._true = self.values
        if others is not None:
            self.values = {key: others.get(key, array) for key, array in self.values.items()}

    def _oracle(self, material: Arguments, dtype: str, order: str = "plain") -> Values:
        programs = (self.case.training, self.case.inference)
        session = Session(Oracle(order), *programs, path="equations", dtype=dtype)
        session.load(material.parameters, material.statistics)
        targets = material.targets if self.loss else None
        with np.errstate(all="ignore"):  # an overflow is a value to compare
            trace = session.trace(self.phase, material.inputs, material.state, targets)
        return {(name, step): array for name, step, array in trace}

    def judge(self, traced: Sequence[Traced]) -> list[TracedPart]:
        """Compare the values ``traced`` (recorded in a backend's pass) with the oracle's. Return
        the comparisons in the order of computation. Values that the oracle does not have are left
        out. If a framework layer returns a whole sequence, each time step is compared separately.
        """
        parts: list[TracedPart] = []
        noise: dict[TracedPart, float] = {}
        for name, step, array in traced:
            key = (name, step)
            if key not in self.values:
                continue
            reason = shape_or_dtype_error(array, self.values[key], host_dtype(self.dtype))
            if reason or isinstance(array, Misfit):
                empty = np.empty(0)
                parts.append(TracedPart(name, step, key, ..., empty, empty, reason))
                continue
            is_sequence = step is None and array.ndim == 3
            for at in range(array.shape[1]) if is_sequence else (step,):
                index = (slice(None), at) if is_sequence else ...
                expected, oracle_value = self.values[key][index], self._true[key][index]
                errors = (
                    relative_error(trace[key][index], oracle_value, _largest_entry(oracle_value))
                    for trace in self._rough
                )
                parts.append(TracedPart(name, at, key, index, array[index], expected))
                noise[parts[-1]] = self._ways * max(errors)
        typical = at_least_typical(noise)
        floor = FLOOR * PRECISION[self.dtype]
        return [replace(part, allowed=K * max(typical.get(part, 0.0), floor)) for part in parts]

    def wrong(self, trace: Sequence[Traced]) -> list[TracedPart]:
        """Return the wrong values among the recorded values of a pass (``trace``), in the order of
        computation."""
        return [part for part in self.judge(trace) if not part.agrees]

    def locate(self, part: TracedPart) -> Location:
        """Find the equation of a wrong value, and a mistake with parameters (see
        :func:`hypotheses`) that would explain the value."""
        place = self._places.get(without_number(part.name), "")
        return Location(part, place, "" if part.reason else self._find_explanation(part))

    def names_at(self, place: str) -> set[str]:
        """Return the names of all values that the equation at ``place`` (``file:line``) computes.
        Several layers with the same definition share an equation."""
        return {n for n, _ in self.values if self._places.get(without_number(n)) == place}

    def _find_explanation(self, part: TracedPart) -> str:
        """Return the description of a mistake that explains the value: the first mistake with which
        the oracle computes the same value as the backend. Return an empty text if there is no such
        mistake."""
        for _, text, parameters in hypotheses(self.material.parameters):
            material = replace(self.material, parameters=parameters)
            trace = self._oracle(material, "float64")
            changed = trace[part.key][part.index]
            effect = relative_error(changed, part.expected, _largest_entry(part.expected))
            error = relative_error(part.actual, changed, _largest_entry(changed))
            if error <= part.allowed and effect > DECISIVE * part.allowed:
                return text
        return ""


def _largest_entry(array: Array) -> float:
    return float(np.max(np.abs(array), initial=0.0)) or 1.0


def find_makers(program: Program, value: str, right: Collection[str]) -> tuple[str, ...]:
    """Return the layers and losses on which a wrong result or value depends, in the order of
    computation.

    The search goes backwards through the program. It stops at the values in ``right``, which are
    known to be right.
    """
    results = {f"output.{port.name}": port.value for port in program.outputs}
    results |= {f"state.{port.name}": port.value for port in program.new_state}
    results |= {name: number for number, name in program.names.items()}
    if program.loss is not None:
        results["loss"] = program.loss
    wrong, calls = {results.get(value)}, list[str]()
    for node in reversed(program.nodes):
        if wrong.isdisjoint(node.outputs):
            continue
        if node.op == "call":
            calls.append(call_key(node))
        wrong.update(n for n in reads(node) if program.names.get(n) not in right)
    return tuple(reversed(calls))


def find_wrong_result(findings: Sequence[Finding]) -> str:
    """Return the name of the first result of the forward pass that differs; an empty text if all
    results agree."""
    wrong = _find_deviations({f.check: f for f in findings if f.verdict == "differ"}, FORWARD)
    return wrong[0].name if wrong else ""


def describe_later_phases(
    findings: Sequence[Finding], program: Program
) -> tuple[str, tuple[str, ...]]:
    """Describe the first fault if all recorded values of the forward pass agree. Return the text,
    and the layers that the text names, the likeliest cause first.

    The function looks at results that are not recorded (e.g. a loss), then at gradients, then at
    updates. If all of these are right on the usual test arrays, the text lists the checks that
    differ. The likeliest cause is the layer nearest to the loss, or the layer of the parameter with
    the largest error.
    """
    wrong = {f.check: f for f in findings if f.verdict == "differ"}
    if untraced := [d.name for d in _find_deviations(wrong, FORWARD)]:
        return f"forward: every traced value agrees; wrong results: {join_names(untraced)}", ()
    if gradients := {d.name for d in _find_deviations(wrong, BACKWARD)}:
        names = [p.name for p in reversed(program.parameters) if f"gradient.{p.name}" in gradients]
        gradient_text = join_names(_add_definitions(names, program) or sorted(gradients))
        text = f"backward: the forward pass is right; wrong gradients: {gradient_text}"
        return text, tuple(dict.fromkeys(filter(None, map(owner_of, names))))
    if steps := [d for d in _find_deviations(wrong, UPDATE) if d.name.startswith("step ")]:
        gradients_pass = any(f.check in BACKWARD and f.verdict in PASSING for f in findings)
        gradients_text = "gradients are right" if gradients_pass else "gradients were not compared"
        first = min(_parse_step(d) for d in steps)
        name = worst([d for d in steps if _parse_step(d) == first]).name
        # The names look like ``step 1: rnn.W moved``.
        owner = owner_of(name.partition(": ")[2].partition(" ")[0])
        text = f"update: {gradients_text}; the first wrong step is {name!r}"
        return text, (owner,) if owner else ()
    return (
        f"the forward pass is right on ordinary values; checks that differ: {', '.join(wrong)}",
        (),
    )


def _find_deviations(wrong: Mapping[str, Finding], checks: Sequence[str]) -> list[Deviation]:
    findings = [wrong[check] for check in checks if check in wrong]
    return [d for finding in findings for d in finding.deviations if not d.agrees]


def _parse_step(deviation: Deviation) -> int:
    return int(deviation.name.removeprefix("step ").partition(":")[0])


def _add_definitions(names: Sequence[str], program: Program) -> list[str]:
    """Return a text for each parameter in ``names``: its gradient, and the definition of its layer,
    e.g. ``gradient.out.W (dense)``."""
    layers = {
        str(node.attributes["instance"]): str(node.attributes["definition"])
        for node in program.calls
        if "instance" in node.attributes
    }
    return [f"gradient.{name} ({layers[owner_of(name)]})" for name in names]


def join_names(names: Sequence[str], most: int = 3) -> str:
    """Join the first ``most`` names, and add the number of omitted names: ``a, b, c and 2
    more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
