"""Where a cell first parts from the oracle: phase, value, layer, equation, time step.

The phase is the first that is wrong of forward (:func:`forward_location`), then backward and
update (:func:`later_location`): what comes after a wrong phase is wrong because of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.check.findings import PASSING, Finding
from harness.oracle.case import Case
from harness.oracle.oracle import ORDERS, Oracle
from harness.oracle.tolerance import FLOOR, PRECISION, Deviation, K, relative_error, worst
from harness.oracle.yardstick import at_least_typical
from harness.program.ir import Program, walk_nodes
from harness.runtime.arguments import Arguments
from harness.runtime.session import Session
from harness.runtime.tensors import Misfit
from harness.worker.remote import Traced

# What a hypothesis changes must be this many tolerances, or its fit would say nothing.
DECISIVE = 10.0
NAMED = 3
# How a hint begins; what is said after it makes up for parameters that were handed over wrongly.
RIGHT_IF = "It is right if"
FORWARD = ("outputs", "loss", "state", "statistics")
BACKWARD = ("gradients", "cotangent-gradients")
UPDATE = ("training", "training-sgd")


@dataclass(frozen=True)
class Location:
    """The first named value that is wrong, in the order in which values are made."""

    phase: str
    value: str
    step: int | None
    place: str
    error: float
    hint: str = ""
    reason: str = ""  # why it is no value of that kind at all

    def __str__(self) -> str:
        layer, _, name = self.value.rpartition("/")
        where = f"{name} of layer {layer}" if layer else self.value
        step = "" if self.step is None else f", time step {self.step}"
        place = f" ({self.place})" if self.place else ""
        hint = f". {self.hint}" if self.hint else ""
        how = f": {self.reason}" if self.reason else f", by {self.error:.2e}{hint}"
        return f"{self.phase}: first differs at {where}{step}{place}{how}"


@dataclass(frozen=True, eq=False)
class _Part:
    """A traced value, or one time step of it, and what it may be off by.

    With a ``reason`` it is of another shape or dtype than it must be, and is not compared.
    """

    name: str
    step: int | None
    key: tuple[str, int | None]
    index: Any
    found: Array
    expected: Array
    noise: float
    reason: str = ""

    @property
    def error(self) -> float:
        return relative_error(self.found, self.expected, _size(self.expected))


def forward_location(
    case: Case, material: Arguments, found: Sequence[Traced], dtype: str
) -> Location | None:
    """Compare a backend's trace of a training pass with the oracle's; None if all agrees."""
    parts = _parts(case, material, found, dtype)
    noise = at_least_typical({part: part.noise for part in parts if not part.reason})
    for part in parts:
        yardstick = max(noise.get(part, 0.0), FLOOR * PRECISION[dtype])
        place = places(case.training).get(part.name, "")
        if part.reason:
            return Location("forward", part.name, part.step, place, np.inf, reason=part.reason)
        if not part.error <= K * yardstick:
            hint = _hint(case, material, part, K * yardstick)
            return Location("forward", part.name, part.step, place, part.error, hint)
    return None


def _oracle_trace(
    case: Case, material: Arguments, dtype: str, order: str = "plain"
) -> dict[tuple[str, int | None], Array]:
    """The oracle's values by name and time step."""
    session = Session(Oracle(order), case.training, case.inference, path="equations", dtype=dtype)
    session.load(material.parameters, material.statistics)
    trace = session.trace("training", material.inputs, material.state)
    return {(name, step): array for name, step, array in trace}


def _parts(case: Case, material: Arguments, found: Sequence[Traced], dtype: str) -> list[_Part]:
    """What can be compared, and what cannot though it should. A value that a native layer made as
    a whole sequence is taken step by step."""
    expected = _oracle_trace(case, material, "float64")
    rough = [_oracle_trace(case, material, dtype, order) for order in ORDERS]
    parts = []
    for name, step, array in found:
        key = (name, step)
        if key not in expected:
            continue
        reason = _wrong_form(array, expected[key], dtype)
        if reason or isinstance(array, Misfit):
            empty = np.empty(0)
            parts.append(_Part(name, step, key, ..., empty, empty, 0.0, reason))
            continue
        whole = step is None and array.ndim == 3
        for at in range(array.shape[1]) if whole else (step,):
            index = (slice(None), at) if whole else ...
            wanted = expected[key][index]
            size = _size(wanted)
            noise = max(relative_error(trace[key][index], wanted, size) for trace in rough)
            parts.append(_Part(name, at, key, index, array[index], wanted, noise))
    return parts


def _wrong_form(found: Array | Misfit, expected: Array, dtype: str) -> str:
    """Why a traced value is none of its kind; empty if it is one."""
    if isinstance(found, Misfit):
        return found.reason
    if found.shape != expected.shape:
        return f"expected shape {list(expected.shape)}, found {list(found.shape)}"
    wanted = np.dtype(dtype) if expected.dtype.kind == "f" else expected.dtype
    same = found.dtype.kind == wanted.kind and (wanted.kind != "f" or found.dtype == wanted)
    return "" if same else f"expected dtype {wanted}, found {found.dtype}"


def _size(array: Array) -> float:
    return float(np.max(np.abs(array), initial=0.0)) or 1.0


def places(program: Program) -> dict[str, str]:
    """``file:line`` of the equation of every named value."""
    nodes = list(walk_nodes(program.nodes))
    # What a call or a loop returns was made inside it.
    nodes.sort(key=lambda node: node.body is not None)
    found: dict[str, str] = {}
    for node in nodes:
        for output in node.outputs:
            if output in program.names:
                found.setdefault(program.names[output], node.place)
    return found


def _hint(case: Case, material: Arguments, part: _Part, tolerance: float) -> str:
    """The first change of parameters under which the oracle gives what was found, in words."""
    for text, parameters in _hypotheses(material.parameters):
        trace = _oracle_trace(case, replace(material, parameters=parameters), "float64")
        changed = trace[part.key][part.index]
        effect = relative_error(changed, part.expected, _size(part.expected))
        error = relative_error(part.found, changed, _size(changed))
        if error <= tolerance and effect > DECISIVE * tolerance:
            return f"{RIGHT_IF} {text}"
    return ""


def _hypotheses(parameters: ArrayDict) -> Iterator[tuple[str, ArrayDict]]:
    """Mistakes in handing over parameters, each with the parameters that would make up for it."""
    trades = list(_trades(parameters))
    for layer, one, other, stems in trades:
        if len(stems) > 1:
            text = f"the gates {one} and {other} of {layer} trade places"
            yield text, _traded(parameters, layer, one, other, stems)
    for layer, one, other, stems in trades:
        for stem in stems:
            text = f"{stem}_{one} and {stem}_{other} of {layer} trade places"
            yield text, _traded(parameters, layer, one, other, [stem])
    for name, array in parameters.items():
        if array.ndim == 2 and array.shape[0] == array.shape[1]:
            layer, _, local = name.partition(".")
            yield f"{local} of {layer} is transposed", {**parameters, name: array.T}


def _trades(parameters: ArrayDict) -> Iterator[tuple[str, str, str, list[str]]]:
    """Every layer with two of its gates, and the stems (W, U, b) that both have in one shape."""
    gates: dict[str, dict[str, list[str]]] = {}
    for name in parameters:
        layer, _, local = name.partition(".")
        stem, _, gate = local.rpartition("_")
        if stem:
            gates.setdefault(layer, {}).setdefault(gate, []).append(stem)
    for layer, stems in gates.items():
        for one, other in itertools.combinations(stems, 2):
            shapes = {
                stem: {parameters[f"{layer}.{stem}_{gate}"].shape for gate in (one, other)}
                for stem in stems[one]
                if stem in stems[other]
            }
            yield layer, one, other, [stem for stem, both in shapes.items() if len(both) == 1]


def _traded(
    parameters: ArrayDict, layer: str, one: str, other: str, stems: Sequence[str]
) -> dict[str, Array]:
    traded = dict(parameters)
    for stem in stems:
        first, second = f"{layer}.{stem}_{one}", f"{layer}.{stem}_{other}"
        traded[first], traded[second] = parameters[second], parameters[first]
    return traded


def later_location(findings: Sequence[Finding], program: Program) -> str:
    """Which phase is wrong, by a cell's findings, where every traced value agrees.

    In the order in which phases run: results that are not traced (a loss), gradients, updates;
    if these are right on ordinary values, the checks on other ones that differ.
    """
    wrong = {f.check: f for f in findings if f.verdict == "differ"}
    if untraced := [d.name for d in _deviating(wrong, FORWARD)]:
        return f"forward: every traced value agrees; wrong results: {_listed(untraced)}"
    if gradients := {d.name for d in _deviating(wrong, BACKWARD)}:
        named = _listed(_from_the_loss(gradients, program))
        return f"backward: the forward pass is right; wrong gradients: {named}"
    if steps := [d for d in _deviating(wrong, UPDATE) if d.name.startswith("step ")]:
        right = any(f.check in BACKWARD and f.verdict in PASSING for f in findings)
        known = "gradients are right" if right else "gradients were not compared"
        first = min(_step(d) for d in steps)
        name = worst([d for d in steps if _step(d) == first]).name
        return f"update: {known}; the first wrong step is {name!r}"
    return f"the forward pass on ordinary values is right; what differs is in: {', '.join(wrong)}"


def _deviating(wrong: Mapping[str, Finding], checks: Sequence[str]) -> list[Deviation]:
    found = [wrong[check] for check in checks if check in wrong]
    return [d for finding in found for d in finding.deviations if not d.agrees]


def _step(deviation: Deviation) -> int:
    return int(deviation.name.removeprefix("step ").partition(":")[0])


def _from_the_loss(gradients: set[str], program: Program) -> list[str]:
    """Gradients with their layers' definitions, in the order in which they are propagated."""
    layers = {
        str(node.attributes["instance"]): str(node.attributes["definition"])
        for node in program.calls
        if "instance" in node.attributes
    }
    names = [port.name for port in reversed(program.parameters)]
    return [
        f"gradient.{name} ({layers[name.partition('.')[0]]})"
        for name in names
        if f"gradient.{name}" in gradients
    ] or sorted(gradients)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
