"""Causes in training steps: the right gradients are fed in, so that the optimizer is by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.arrays import Arrays
from harness.checking.causes.cause import Cause, Causes, listed
from harness.checking.causes.linear import Batch, Linear, Train, step_arrays
from harness.oracle.case import Case
from harness.oracle.tolerance import Deviation
from harness.oracle.yardstick import Expected
from harness.program.signature import port_shapes
from harness.program.updates import UpdateRule
from harness.worker.remote import WorkerFault


def update_causes(
    case: Case,
    rule: UpdateRule,
    batches: Sequence[Batch],
    expected: Expected,
    train: Train,
    dtype: str,
) -> Causes | None:
    """What of training steps is wrong; None if all of them are as ``expected``.

    The optimizer by itself is held against the oracle, whatever else is compared.
    """
    own = step_arrays(
        train(case.training, case.inference, rule, case.material, batches), case.material
    )
    wrong = _first_wrong(expected, own, dtype)
    if wrong is None:
        return None
    linear = Linear(case, rule, batches)
    try:
        found = linear.steps(train)
    except WorkerFault as fault:
        cause = Cause("update", wrong.words, wrong.names)
        return Causes([cause], False, f"the optimizer by itself could not be run: {fault}")
    alone = _first_wrong(linear.expected, found, dtype)
    if alone is None:
        cause = Cause("update", wrong.words, wrong.names)
        proof = (
            "with the gradients of the oracle the optimizer alone is right in every step: it is "
            "what a step hands to the next one (state, statistics, the gradient itself)"
        )
        return Causes([cause], True, proof)
    hint = linear.hint(found, dtype)
    what = f"{rule.name} is given right gradients, and {alone.words}"
    cause = Cause("update", what, alone.names, _place(case, rule, alone.names), alone.error, hint)
    proof = "the gradients were those of the oracle: it is the optimizer, by itself"
    return Causes([cause], True, proof)


@dataclass(frozen=True)
class Wrong:
    """The values of the first wrong step that are off."""

    step: int
    names: tuple[str, ...]
    error: float | None

    @property
    def words(self) -> str:
        """``step 3: out.W moved is the first wrong value``."""
        are = "is the first wrong value" if len(self.names) == 1 else "are the first wrong values"
        return f"step {self.step}: {listed(self.names)} {are}"


def _first_wrong(expected: Expected, found: Arrays, dtype: str) -> Wrong | None:
    off = [d for d in expected.deviations(found, dtype) if not d.agrees]
    if not off:
        return None
    first = min(map(_step, off))
    own = [d for d in off if _step(d) == first]
    own.sort(key=lambda d: (_order(d.name), -d.ratio))
    error = max(d.error for d in own)
    names = tuple(d.name.partition(": ")[2] for d in own)
    return Wrong(first, names, error if np.isfinite(error) else None)


def _step(deviation: Deviation) -> int:
    number = deviation.name.removeprefix("step ").partition(":")[0]
    return int(number) if number.isdigit() else 0


def _order(name: str) -> int:
    """Results come before slots, and slots before what is made of them."""
    if name.endswith(": loss"):
        return 0
    return 2 if name.endswith(" moved") else 1


def _place(case: Case, rule: UpdateRule, names: Sequence[str]) -> str:
    """The equation of the first slot that is wrong, or of the parameter."""
    shapes = port_shapes(case.training, case.training.parameters)
    wrong = [name.rpartition(" ") for name in names]
    owner, slot = next(((n, s) for n, _, s in wrong if s != "moved"), (wrong[0][0], ""))
    own = rule.of(owner, len(shapes.get(owner, ())))
    made = {port.name: port.value for port in own.new_slots}
    wanted = made.get(slot, own.new_parameter)
    places = (node.place for node in own.nodes if wanted in node.outputs)
    return next(places, "")
