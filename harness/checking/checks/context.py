"""The arguments of a check (a model, its arrays and a backend's session), and helper functions that
checks share."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Mapping, Sequence
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
from harness.runtime.answers import Arguments, Misfit, check_all_arrays
from harness.runtime.precision import host_dtype, narrow
from harness.worker.remote import Remote, Tensors
from harness.worker.worker import Worker

T = TypeVar("T")
# A batch is a dictionary with ``inputs``, ``targets`` and the ``learning_rate`` of the step. The
# result of a step has ``results``, ``parameters``, ``statistics`` and ``slots``.
Batch = Mapping[str, Any]
Batches = Sequence[Batch]
Step = Mapping[str, Any]
# Results by name. A Misfit replaces a result that is no array of the right type.
Results = Mapping[str, Array | Misfit]


@dataclass(frozen=True)
class Context:
    """Arguments of every check: a test case, i.e. a model at fixed sizes with its arrays, and the
    worker that runs the case on a backend.

    - ``case`` has small sizes, and ``own`` is a test case with the spec's own sizes. ``huge`` has
      the sizes that the user has set, if the model is then huge.
    - ``remote`` sends calls to the worker process.
    - ``outputs`` and ``values`` are arrays that the backend has computed, by name. They are stored
      for a later comparison with other backends.
    - ``repeat`` is the number of repetitions in the check ``soak``.
    - ``brief`` is true in a float64 cell if the same command also makes all checks in float32. Some
      checks then run fewer steps.
    - ``eager`` is true if the framework runs one operation after the other, without compilation.
    - ``stage`` is called with a text at the start of each part of a long check.
    """

    case: Case
    own: Case
    remote: Remote
    path: str
    dtype: str
    device: str
    # Results that are stored to compare backends with each other.
    outputs: dict[str, Array] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    huge: Case | None = None
    repeat: int = 0
    brief: bool = False
    eager: bool = False
    stage: Callable[[str], None] = lambda _: None

    @property
    def float_dtype(self) -> str:
        """The dtype of all floats. Only the operands of matrix products may have a narrower
        dtype."""
        return host_dtype(self.dtype)

    @property
    def narrowed(self) -> bool:
        """True if the operands of matrix products have a narrower dtype than all other floats."""
        return bool(narrow(self.dtype))

    def open(self, rule: UpdateRule | None = None) -> dict[str, str]:
        """Open a session of the case on the backend. Return a dictionary from layer to the name of
        the code that runs it, e.g. ``{"out": "torch.nn.functional.linear"}``. ``rule`` is the
        update rule of the optimizer, if the session trains."""
        case, setting = self.case, (self.path, self.dtype, self.device)
        return self.remote.open(case.training, case.inference, rule, *setting, self.eager)

    def open_case(self, case: Case, rule: UpdateRule | None = None) -> Context:
        """Open a session of a different test case, and load the parameters of ``case``. Return a
        context with which checks can use ``case``."""
        context = replace(self, case=case)
        context.open(rule)
        context.remote.load(case.material)
        return context

    def finding(self, check: str, results: Results, expected: Expected) -> Finding:
        """Compare results with the expected results, in the dtype of the cell, and return the
        result of the comparison. ``check`` is the name of the check."""
        return compare_results(check, results, expected, self.dtype)

    def compare_gradients(self, check: str, material: Arguments, expected: Expected) -> Finding:
        """Load the parameters in ``material``, and compute a training pass with gradients of the
        loss on its batch. Compare all results and gradients with the expected values."""
        self.remote.load(material)
        return self.finding(check, self.remote.gradients(material), expected)

    def forward(self, material: Arguments) -> Tensors:
        """Run inference on the batch in ``material``, and return the results by name. The session
        must already have the parameters."""
        return self.remote.forward("inference", material.inputs, material.state)

    def run_pipeline(
        self, mode: str, batches: Batches, rule: UpdateRule | None, rate: float
    ) -> tuple[list[ArrayDict], Step]:
        """Prepare a pipeline, i.e. steps that the worker runs without returning results in between.
        Run the pipeline as :meth:`run_twice` does, and return the same two things.

        ``mode`` is "train" or "forward". The steps use ``batches`` in turn. ``rate`` is the
        learning rate.
        """
        self.prepare(mode, batches, rule, rate)
        return self.run_twice(len(batches))

    def run_twice(self, count: int) -> tuple[list[ArrayDict], Step]:
        """Run ``2 * count`` steps of the prepared pipeline, which has ``count`` batches, so that
        each batch is used twice.

        Return two things: the results of the second half of the steps, and the parameters,
        statistics and optimizer slots after the last step.
        """
        call = self.remote.call
        call("throughput", first=0, count=count)
        return call("values", first=count, count=count), call("parameters")

    def prepare(self, mode: str, batches: Batches, rule: UpdateRule | None, rate: float) -> None:
        """Prepare a pipeline: steps of the case that the worker will run without returning results
        in between. No step runs yet. ``mode`` is "train" or "forward", and ``rate`` is the learning
        rate. The steps use ``batches`` in turn."""
        self.call_worker("prepare", batches, rule, rate, path=self.path, mode=mode, quick=True)

    def call_worker(
        self, verb: str, batches: Batches, rule: UpdateRule | None, rate: float, **further: Any
    ) -> Any:
        """Call the worker's method ``verb`` with the programs and arrays of the case, the batches,
        the update rule and the learning rate (``rate``). ``further`` has more arguments of the
        method. Return the worker's answer."""
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


def compare_results(check: str, results: Results, expected: Expected, dtype: str) -> Finding:
    """Compare results with all expected values, by name, and return the result of the check. If a
    result has a name that the oracle does not have, the check fails."""
    deviations = expected.deviations(results, dtype)
    if deviations:
        worst_index = deviations.index(worst(deviations))
        deviations[worst_index] = expected.spread(deviations[worst_index], results)
    return Finding(check, deviations)


def select_names(expected: Expected, names: Container[str]) -> Expected:
    """Return only the expected values whose names are in ``names``."""
    return replace(expected, values={n: a for n, a in expected.values.items() if n in names})


def select_prefixes(entries: Mapping[str, T], *prefixes: str) -> dict[str, T]:
    """Return the entries of a dictionary whose names start with one of ``prefixes``."""
    return {n: a for n, a in entries.items() if n.startswith(prefixes)}


def describe_first_difference(
    actual: Array | Misfit | None, expected: Array | Misfit | None
) -> str:
    """Describe the first entry in which two arrays differ, as a text that starts with ": ".

    Return an empty text if the arrays are equal or have different shapes, or if a value is not an
    array.
    """
    if not isinstance(actual, np.ndarray) or not isinstance(expected, np.ndarray):
        return ""
    if actual.shape != expected.shape:
        return ""
    differs = np.asarray((actual != expected) & ~(np.isnan(actual) & np.isnan(expected)))
    return f": {worst_point(actual, expected, differs, 0.0)}" if differs.any() else ""


def equal(a: Array | Misfit | None, b: Array | Misfit | None, bits: bool = False) -> bool:
    """Return whether two results ``a`` and ``b`` have equal numbers (NaN equals NaN), or equal
    bytes if ``bits`` is true. Two results that are not arrays are equal if both are invalid for the
    same reason."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return isinstance(a, Misfit) and isinstance(b, Misfit) and a == b
    if bits:
        return a.tobytes() == b.tobytes()
    return bool(np.array_equal(a, b, equal_nan=True))


def list_differences(first: Results, later: Results, fault: str, bits: bool = False) -> list[str]:
    """Compare a later call with the first call. Return a message for each result that differs. With
    ``bits``, results must have equal bytes, not only equal numbers. ``fault`` is the message; it
    has ``{}`` in place of the result's name."""
    return [
        f"{fault.format(name)}{describe_first_difference(later.get(name), array)}"
        for name, array in first.items()
        if not equal(array, later.get(name), bits)
    ]


# A repeated call must return the same bits. If the backend does not promise that (GPU atomics), the
# results must agree within the tolerance.


def compare_repetition(
    context: Context,
    finding: Finding,
    first: Results,
    later: Results,
    expected: Callable[[], Expected],
    fault: str,
) -> int:
    """Compare a repeated call with the first call, and add each difference to ``finding`` as a
    fault.

    Args:
        first: Results of the first call by name, of any shapes.
        later: Results of the later call.
        expected: Function that returns the oracle's results. It is called only if the backend does
            not repeat bits; the two calls may then differ by the oracle's noise.
        fault: The message for a tensor that differs, with ``{}`` in place of its name.

    Returns:
        The number of tensors that were compared bit by bit.
    """
    if context.remote.repeats:
        finding.faults += list_differences(first, later, fault)
        return len(first)
    expected_again = replace(expected(), values=check_all_arrays(first))
    finding.deviations += [
        replace(d, name=fault.format(d.name))
        for d in expected_again.deviations(later, context.dtype)
    ]
    return 0


# Probes are small models of the harness, in ``specs/probes/``. They test a framework independently
# of the checked model. So each probe runs once in each worker process, and all cells with the same
# dtype, device and path share its result.

_results_by_worker: WeakKeyDictionary[Worker, dict[Hashable, Any]] = WeakKeyDictionary()


def run_once_per_worker(context: Context, key: Hashable, compute: Callable[[], T]) -> T:
    """Return the result of ``compute()``, and store it. A later call with the same ``key`` returns
    the stored result, if it is for the same worker process, device, dtype and path."""
    worker = context.remote.worker
    results = _results_by_worker.setdefault(worker, {})
    full_key = (worker.starts, context.device, context.dtype, context.path, key)
    if full_key not in results:
        results[full_key] = compute()
    result: T = results[full_key]
    return result


@cache
def load_probe(name: str) -> Spec:
    """Load a probe, i.e. a small test model of the harness, from ``specs/probes/``."""
    text = files("harness.specs.probes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return load_spec(f"probe/{name}", overrides={("model", f"probe/{name}"): text})


def make_probe_case(name: str, batch: int, make: Callable[[Program], Arguments]) -> Case:
    """Return the test case of a probe (a small test model of the harness). ``make`` gets the
    probe's program, and returns parameters and a batch, which replace the usual random arrays."""

    def draw_arguments(training: Program, _: Program, seed: int) -> tuple[int, Arguments]:
        return seed, make(training)

    return Case(load_probe(name), {}, batch, 1, drawing=draw_arguments)
