"""Whether what was exported gives the outputs that the spec means, by the oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from harness.arrays import ArrayDict, Arrays
from harness.convert.weights import Weights
from harness.language.model import Spec
from harness.oracle.case import Case
from harness.oracle.tolerance import Deviation, digits, worst
from harness.program.signature import nearest_sizes, without_noise

# (inputs, state) -> outputs and new state by name.
Run = Callable[[ArrayDict, ArrayDict], Arrays]
# Batch and time of each run, or the nearest that a model can have: one of them is not enough for a
# file that holds only for one size.
SIZES = ((3, 7), (2, 1))


@dataclass(frozen=True)
class Agreement:
    """How outputs compare with the oracle's; ``worst`` is the one that is furthest off. Of those
    that are lost in rounding, or not finite, there are no ``comparisons``."""

    comparisons: int
    worst: Deviation

    @property
    def agrees(self) -> bool:
        """Whether all do, and there is one at least."""
        return self.comparisons > 0 and self.worst.agrees

    @property
    def digits(self) -> float:
        """Decimal digits in which the worst one agrees, 16 at most."""
        return digits(self.worst.error)


def agreement(spec: Spec, given: Weights, dtype: str, run: Run, seed: int) -> Agreement:
    """Run on drawn inputs and state, and compare all outputs and new state.

    Raises:
        UsageError: there is no batch and time that the model can have at these sizes.
    """
    program = spec.program("training", **given.sizes)
    tried = [nearest_sizes(program, batch, time) for batch, time in SIZES]
    case = Case(spec, given.sizes, *tried[0], seed)
    own = {"parameters": dict(given.parameters), "statistics": dict(given.statistics)}
    found: list[Deviation] = []
    for batch, time in tried:
        material = replace(case.batch_of(batch, time), **own)
        expected = case.forward("inference", material, (batch, time)).only("output.", "state.")
        results = run(without_noise(case.training, material.inputs), material.state)
        found += expected.deviations(results, dtype)
    told = [deviation for deviation in found if not deviation.void]
    return Agreement(len(told), worst(told or found))
