"""All that a check works with."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.language.model import Spec, load_spec
from harness.oracle.case import Case
from harness.oracle.tolerance import worst, worst_point
from harness.oracle.yardstick import Expected
from harness.program.ir import Program
from harness.program.serial import encoded
from harness.program.updates import UpdateRule
from harness.results.findings import Finding
from harness.runtime.answers import Arguments, Misfit, whole
from harness.runtime.precision import host_dtype, narrow
from harness.worker.remote import Remote, Tensors
from harness.worker.worker import Worker

T = TypeVar("T")
# Of a training: ``inputs``, ``targets`` and the ``learning_rate`` of its step; and what a step has
# given: ``results``, ``parameters``, ``statistics`` and ``slots``.
Batch = Mapping[str, Any]
Batches = Sequence[Batch]
Step = Mapping[str, Any]
# Results by name, and what stands in the place of one.
Found = Mapping[str, Array | Misfit]


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

    def open(self, rule: UpdateRule | None = None) -> dict[str, str]:
        """A session of the case; returns what runs each layer."""
        case, setting = self.case, (self.path, self.dtype, self.device)
        return self.remote.open(case.training, case.inference, rule, *setting)

    def opened(self, case: Case, rule: UpdateRule | None = None) -> Context:
        """A session of another case, with its parameters."""
        context = replace(self, case=case)
        context.open(rule)
        context.remote.load(case.material)
        return context

    def finding(self, check: str, found: Found, expected: Expected) -> Finding:
        """As of :func:`compared`, in the cell's dtype."""
        return compared(check, found, expected, self.dtype)

    def compare_gradients(self, check: str, material: Arguments, expected: Expected) -> Finding:
        """Results and gradients of the loss at a material's numbers."""
        self.remote.load(material)
        return self.finding(check, self.remote.gradients(material), expected)

    def forward(self, material: Arguments) -> Tensors:
        """An inference pass with the material's batch; parameters must be loaded."""
        return self.remote.forward("inference", material.inputs, material.state)

    def timed(
        self, mode: str, batches: Batches, rule: UpdateRule | None, rate: float
    ) -> tuple[list[ArrayDict], Step]:
        """Steps of a pipeline, as of :meth:`run_twice`."""
        self.prepare(mode, batches, rule, rate)
        return self.run_twice(len(batches))

    def run_twice(self, count: int) -> tuple[list[ArrayDict], Step]:
        """Steps of a pipeline that is prepared, twice as many as its ``count`` batches: the results
        of the later half, and what all of them have made of parameters, statistics and slots."""
        call = self.remote.call
        call("throughput", first=0, count=count)
        return call("values", first=count, count=count), call("parameters")

    def prepare(self, mode: str, batches: Batches, rule: UpdateRule | None, rate: float) -> None:
        """A pipeline of the case, before its first step."""
        self.steps("prepare", batches, rule, rate, path=self.path, mode=mode, quick=True)

    def steps(
        self, verb: str, batches: Batches, rule: UpdateRule | None, rate: float, **further: Any
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
            learning_rate=rate,
            **further,
        )


def compared(check: str, found: Found, expected: Expected, dtype: str) -> Finding:
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


def equal(a: Array | Misfit | None, b: Array | Misfit | None, bits: bool = False) -> bool:
    """The same numbers, NaN included, or the same ``bits``; or the same misfit."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return isinstance(a, Misfit) and isinstance(b, Misfit) and a == b
    if bits:
        return a.tobytes() == b.tobytes()
    return bool(np.array_equal(a, b, equal_nan=True))


# The same call again: its bits, or agreement where a backend promises none (GPUs with atomics).


def hold_again(
    context: Context,
    finding: Finding,
    first: Found,
    later: Found,
    expected: Callable[[], Expected],
    fault: str,
) -> int:
    """Hold a later call against the first, in a finding.

    Args:
        first: Results of the first call by name, of any shapes.
        later: Those of the later one.
        expected: Gives what the oracle has for them, and is called only where the backend's bits
            do not repeat: its noise is what may lie between them.
        fault: What is wrong with a tensor that differs, with its name for ``{}``.

    Returns:
        How many tensors were to have the same bits.
    """
    if context.remote.repeats:
        finding.faults += [
            f"{fault.format(name)}{where_apart(later.get(name), array)}"
            for name, array in first.items()
            if not equal(array, later.get(name))
        ]
        return len(first)
    near = replace(expected(), values=whole(first))
    finding.deviations += [
        replace(d, name=fault.format(d.name)) for d in near.deviations(later, context.dtype)
    ]
    return 0


# Models of the harness' own, ``specs/probes/``: what a framework does, whatever the model.
#
# What is found with one holds for every cell of a process: it is asked for once, and all cells of
# one dtype, device and path have the same finding.

_known: WeakKeyDictionary[Worker, dict[Hashable, Any]] = WeakKeyDictionary()


def once(context: Context, key: Hashable, ask: Callable[[], T]) -> T:
    """What was asked of a worker's process, in the settings of a cell, when it was asked first."""
    worker = context.remote.worker
    known = _known.setdefault(worker, {})
    full = (worker.starts, context.device, context.dtype, context.path, key)
    if full not in known:
        known[full] = ask()
    found: T = known[full]
    return found


@cache
def probe(name: str) -> Spec:
    """A model of ``specs/probes/``."""
    text = files("harness.specs.probes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return load_spec(f"probe/{name}", overrides={("model", f"probe/{name}"): text})


def probe_case(name: str, batch: int, make: Callable[[Program], Arguments]) -> Case:
    """The case of a probe: its material is made by ``make``, not drawn."""

    def made(training: Program, _: Program, seed: int) -> tuple[int, Arguments]:
        return seed, make(training)

    return Case(probe(name), {}, batch, 1, drawing=made)
