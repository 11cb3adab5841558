"""All that a check works with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from harness.arrays import Array
from harness.oracle.case import Case
from harness.oracle.tolerance import worst, worst_point
from harness.oracle.yardstick import Expected
from harness.program.serial import encoded
from harness.program.updates import UpdateRule
from harness.results.findings import Finding
from harness.runtime.arguments import Arguments
from harness.runtime.precision import host_dtype, narrow
from harness.runtime.tensors import Misfit
from harness.worker.remote import Remote, Tensors

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """One cell: a backend's session, opened on ``case``; ``own`` is the case at its own sizes.
    ``repeat`` is how often a soak repeats the run of values; ``brief`` is whether this is float64
    and another cell of the run makes all checks in float32."""

    case: Case
    own: Case
    remote: Remote
    path: str
    dtype: str
    device: str
    # What is kept for other backends to be held against.
    outputs: dict[str, Array] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    repeat: int = 0
    brief: bool = False

    @property
    def kept(self) -> str:
        """The dtype of all but the products of a cell."""
        return host_dtype(self.dtype)

    @property
    def narrowed(self) -> bool:
        """Whether its products are narrower than what is kept."""
        return bool(narrow(self.dtype))

    def finding(
        self, check: str, found: Mapping[str, Array | Misfit], expected: Expected
    ) -> Finding:
        """As of :func:`compared`, in the cell's dtype."""
        return compared(check, found, expected, self.dtype)

    def forward(self, material: Arguments) -> Tensors:
        """An inference pass with the material's batch; parameters must be loaded."""
        return self.remote.forward("inference", material.inputs, material.state)

    def timed(
        self,
        mode: str,
        batches: Sequence[Mapping[str, Any]],
        rule: UpdateRule | None,
        learning_rate: float,
    ) -> tuple[list[dict[str, Array]], dict[str, Any]]:
        """Steps of a pipeline, as of :meth:`run_twice`."""
        self.prepare(mode, batches, rule, learning_rate)
        return self.run_twice(len(batches))

    def run_twice(self, count: int) -> tuple[list[dict[str, Array]], dict[str, Any]]:
        """Steps of a pipeline that is prepared, twice as many as its ``count`` batches: the results
        of the later half, and what all of them have made of parameters, statistics and slots."""
        call = self.remote.call
        call("throughput", first=0, count=count)
        return call("values", first=count, count=count), call("parameters")

    def prepare(
        self,
        mode: str,
        batches: Sequence[Mapping[str, Any]],
        rule: UpdateRule | None,
        learning_rate: float,
    ) -> None:
        """A pipeline of the case, before its first step."""
        self.steps("prepare", batches, rule, learning_rate, path=self.path, mode=mode, quick=True)

    def steps(
        self,
        verb: str,
        batches: Sequence[Mapping[str, Any]],
        rule: UpdateRule | None,
        learning_rate: float,
        **further: Any,
    ) -> Any:
        """What a verb that begins steps of the case from its material returns."""
        material = self.case.material
        return self.remote.call(
            verb,
            training=encoded(self.case.training),
            inference=encoded(self.case.inference),
            rule=encoded(rule),
            dtype=self.dtype,
            device=self.device,
            parameters=material.parameters,
            statistics=material.statistics,
            state=material.state,
            batches=list(batches),
            learning_rate=learning_rate,
            **further,
        )


def compared(
    check: str, found: Mapping[str, Array | Misfit], expected: Expected, dtype: str
) -> Finding:
    """Compare everything that was expected, and whatever else was found."""
    deviations = expected.deviations(found, dtype)
    if deviations:
        furthest = deviations.index(worst(deviations))
        deviations[furthest] = expected.spread(deviations[furthest], found)
    return Finding(check, deviations)


def part(found: Mapping[str, T], *prefixes: str) -> dict[str, T]:
    """The entries whose names start so."""
    return {n: a for n, a in found.items() if n.startswith(prefixes)}


def where_apart(found: Array | Misfit | None, expected: Array | Misfit | None) -> str:
    """Return ": " and the first entry in which two arrays of one shape have other numbers; nothing
    of what is not both."""
    if not isinstance(found, np.ndarray) or not isinstance(expected, np.ndarray):
        return ""
    if found.shape != expected.shape:
        return ""
    other = np.asarray((found != expected) & ~(np.isnan(found) & np.isnan(expected)))
    return f": {worst_point(found, expected, other, 0.0)}" if other.any() else ""


def equal(a: Array | Misfit | None, b: Array | Misfit | None) -> bool:
    """The same numbers, NaN included; or the same misfit."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return isinstance(a, Misfit) and isinstance(b, Misfit) and a == b
    return bool(np.array_equal(a, b, equal_nan=True))
