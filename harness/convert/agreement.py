"""Comparison of an exported model's outputs and gradients with the oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from harness.arrays import ArrayDict, Arrays
from harness.convert.weights import Weights
from harness.errors import HarnessError
from harness.language.model import Spec
from harness.oracle.case import Case
from harness.oracle.draw import cotangents
from harness.oracle.tolerance import Deviation, digits, worst
from harness.oracle.yardstick import Expected
from harness.program.signature import input_sizes, nearest_sizes, without_noise
from harness.runtime.answers import Arguments
from harness.runtime.session import Session

# A function that runs the model: (inputs, state) -> outputs and new state by name.
Run = Callable[[ArrayDict, ArrayDict], Arrays]
# Batch and length of each run; if the model does not allow these sizes, the nearest allowed sizes
# are used. Two sizes are tried, because a file may be correct for only one size. The second run
# also has other numbers for sizes that the code reads from its inputs.
SIZES = ((3, 7), (2, 1))
GRADIENT = "gradient."


@dataclass(frozen=True)
class Agreement:
    """The comparison of an exported model's outputs (or gradients) with the oracle's.

    ``worst`` is the tensor with the largest error. ``comparisons`` is the number of compared
    tensors. A tensor is not compared if it is not finite, or consists of rounding error only.
    """

    comparisons: int
    worst: Deviation

    @staticmethod
    def of(deviations: Sequence[Deviation]) -> Agreement:
        """Return the comparison of several tensors; at least one is needed."""
        comparable = [deviation for deviation in deviations if not deviation.void]
        return Agreement(len(comparable), worst(comparable or [*deviations]))

    @property
    def agrees(self) -> bool:
        """True if there is at least one comparison and all tensors agree."""
        return self.comparisons > 0 and self.worst.agrees

    @property
    def digits(self) -> float:
        """The number of decimal digits to which the tensor with the largest error agrees, at most
        16."""
        return digits(self.worst.error)


@dataclass(frozen=True)
class Batch:
    """A pass of an exported model: its arrays, and the oracle's results.

    Attributes:
        inputs: Inputs by name, without noise.
        state: The state before the first step, by name.
        cotangents: A cotangent for each float output and new state, by ``output.NAME``; empty if
            no gradients are compared in this batch.
        expected: Outputs and new state by name, and ``gradient.PARAMETER`` if there are cotangents.
    """

    inputs: ArrayDict
    state: ArrayDict
    cotangents: ArrayDict
    expected: Expected


def draw_batches(
    spec: Spec, weights: Weights, seed: int, *, gradients: bool = False
) -> list[Batch]:
    """Draw batches of several sizes, and compute their results with the oracle. With ``gradients``,
    the first batch has the gradients of all parameters along random cotangents.

    Raises:
        UsageError: the model allows no batch and length near these sizes.
    """
    program = spec.program("training", **weights.sizes)
    sizes = [nearest_sizes(program, batch, time) for batch, time in SIZES]
    case = Case(spec, weights.sizes, *sizes[0], seed)
    other = _other_sizes(spec, weights.sizes, sorted(input_sizes(program)))
    trained = {"parameters": dict(weights.parameters), "statistics": dict(weights.statistics)}
    floats = {f"output.{p.name}" for p in program.outputs if program.type_of(p).kind == "float"}
    batches: list[Batch] = []
    for batch, time in sizes:
        if batches and other != weights.sizes:
            case = Case(spec, other, *nearest_sizes(spec.program(**other), batch, time), seed)
            batch, time = case.batch, case.time
        arrays = replace(case.batch_of(batch, time), **trained)
        along: ArrayDict = {}
        if gradients and not batches and weights.parameters:
            along = cotangents(case.inference, batch, time, seed)
        expected = case.expect(("export", batch, time), partial(_run_batch, arrays, along))
        names = ("output.", "state.", GRADIENT)
        batches.append(
            Batch(
                without_noise(case.training, arrays.inputs),
                dict(arrays.state),
                {n: a for n, a in along.items() if n.startswith("state.") or n in floats},
                expected.of_finite_gradients().only(*names),
            )
        )
    return batches


def _other_sizes(spec: Spec, sizes: Mapping[str, int], free: Sequence[str]) -> Mapping[str, int]:
    """Return the sizes with other numbers for ``free``, which exported code reads from its
    inputs."""
    # A network that halves an image several times accepts only multiples.
    for factor, more in ((0.5, 1), (1, 1), (2, 0)):
        numbers = {name: int(factor * sizes[name] + more) for name in free}
        other = {**sizes, **{n: new + (new == sizes[n]) for n, new in numbers.items()}}
        try:
            nearest_sizes(spec.program("training", **other), *SIZES[1])
        except HarnessError:
            continue
        return other
    return sizes


def _run_batch(arrays: Arguments, along: Arrays, session: Session) -> Arrays:
    """Return the results of inference, and the parameters' gradients along any cotangents."""
    session.load(arrays.parameters, arrays.statistics)
    if not along:
        return session.forward("inference", arrays.inputs, arrays.state)
    results, found = session.gradients("inference", arrays.inputs, arrays.state, {}, along)
    return results | {f"{GRADIENT}{n}": a for n, a in found.items() if n in arrays.parameters}


def agreement(batches: Sequence[Batch], dtype: str, run: Run) -> Agreement:
    """Run the exported model with its framework (by ``run``) on all batches. Compare all outputs
    and the new state with the oracle's."""
    return compare_outputs(batches, (run(batch.inputs, batch.state) for batch in batches), dtype)


def compare_outputs(batches: Sequence[Batch], results: Iterable[Arrays], dtype: str) -> Agreement:
    """Compare the outputs and the new state of each batch with the oracle's."""
    deviations: list[Deviation] = []
    for batch, arrays in zip(batches, results, strict=True):
        deviations += batch.expected.only("output.", "state.").deviations(arrays, dtype)
    return Agreement.of(deviations)
