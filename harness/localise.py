"""Where a cell first parts from the oracle: value, layer, equation, time step, phase."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.case import Case
from harness.material import Material
from harness.oracle import ORDERS, Oracle
from harness.program import Node, Program, walk_nodes
from harness.session import Session
from harness.tolerance import FLOOR, PRECISION, K, relative_error

Array = npt.NDArray[Any]
# One named value: its name, its time step where it was made in a loop, and the array.
Traced = tuple[str, "int | None", Array]


@dataclass(frozen=True)
class Location:
    """The first named value that is wrong, in the order in which values are made."""

    phase: str
    value: str
    step: int | None
    place: str
    error: float
    hint: str = ""

    def __str__(self) -> str:
        layer, _, name = self.value.rpartition("/")
        where = f"{name} of layer {layer}" if layer else self.value
        step = "" if self.step is None else f", time step {self.step}"
        place = f" ({self.place})" if self.place else ""
        hint = f". {self.hint}" if self.hint else ""
        return f"{self.phase}: first differs at {where}{step}{place}, by {self.error:.2e}{hint}"


@dataclass(frozen=True)
class _Part:
    """A traced value, or one time step of it, and what it may be off by."""

    name: str
    step: int | None
    whole: Array
    found: Array
    expected: Array
    scale: float
    noise: float

    @property
    def error(self) -> float:
        return relative_error(self.found, self.expected, self.scale)


def forward_location(
    case: Case, material: Material, found: list[Traced], dtype: str
) -> Location | None:
    """Compare a backend's trace of a training pass with the oracle's; None if all agrees."""
    parts = _parts(case, material, found)
    # As in a case: no value's noise is below the median, it can be right by luck.
    typical = float(np.median([part.noise for part in parts])) if parts else 0.0
    for part in parts:
        yardstick = max(part.noise, typical, FLOOR) * PRECISION[dtype]
        if not part.error <= K * yardstick:
            place = places(case.training).get(part.name, "")
            hint = swapped_gates(case, material, part.name, part.whole)
            return Location("forward", part.name, part.step, place, part.error, hint)
    return None


def _oracle_trace(case: Case, material: Material, dtype: str, order: str = "plain") -> list[Traced]:
    session = Session(Oracle(order), case.training, case.inference, path="equations", dtype=dtype)
    session.load(material.parameters, material.statistics)
    return session.trace("training", material.inputs, material.state)


def _parts(case: Case, material: Material, found: list[Traced]) -> list[_Part]:
    """What can be compared. A value that a native layer made as a whole sequence is taken step by
    step."""
    expected = _by_name(_oracle_trace(case, material, "float64"))
    rough = [_by_name(_oracle_trace(case, material, "float32", order)) for order in ORDERS]
    parts = []
    for name, step, array in found:
        key = (name, step)
        if key not in expected or array.shape != expected[key].shape:
            continue
        whole = step is None and array.ndim == 3
        for at in range(array.shape[1]) if whole else (step,):
            index = (slice(None), at) if whole else ...
            wanted = expected[key][index]
            scale = float(np.max(np.abs(wanted), initial=0.0)) or 1.0
            noise = max(relative_error(trace[key][index], wanted, scale) for trace in rough)
            parts.append(_Part(name, at, array, array[index], wanted, scale, noise))
    return parts


def _by_name(trace: list[Traced]) -> dict[tuple[str, int | None], Array]:
    return {(name, step): array for name, step, array in trace}


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


def swapped_gates(case: Case, material: Material, name: str, found: Array) -> str:
    """Whether the value is right if two gates of a layer trade their parameters."""
    for node in case.training.calls:
        instance = str(node.attributes.get("instance", ""))
        for one, other in itertools.combinations(_gates(node), 2):
            swapped = {
                n: material.parameters[_trade(n, instance, one, other)] for n in material.parameters
            }
            trace = _oracle_trace(case, replace(material, parameters=swapped), "float64")
            for traced, _, array in trace:
                if traced == name and array.shape == found.shape:
                    scale = float(np.max(np.abs(array), initial=0.0)) or 1.0
                    if relative_error(found, array, scale) < 1e-5:
                        return (
                            f"It is right if the gates {one} and {other} of {instance} trade places"
                        )
                    break
    return ""


def _gates(node: Node) -> list[str]:
    endings: dict[str, int] = {}
    for role in node.attributes["roles"]:
        stem, _, gate = role.partition("_")
        if gate and len(stem) == 1:
            endings[gate] = endings.get(gate, 0) + 1
    return [gate for gate, count in endings.items() if count > 1]


def _trade(name: str, instance: str, one: str, other: str) -> str:
    owner, _, local = name.partition(".")
    stem, _, gate = local.partition("_")
    if owner != instance or gate not in (one, other):
        return name
    return f"{owner}.{stem}_{other if gate == one else one}"
