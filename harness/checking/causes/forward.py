"""Causes in a forward pass: the right value is fed in where one is first wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.arrays import Array
from harness.checking.causes.cause import MOST, Cause, Causes
from harness.checking.first_difference import Expectations, Location
from harness.worker.remote import Traced

# Runs the pass with values in the place of others: name, time step, array.
Trace = Callable[[Sequence[tuple[str, int | None, Array]]], Sequence[Traced]]


def forward_causes(expected: Expectations, trace: Trace, reference: str) -> Causes | None:
    """The values that are wrong though all before them are right; None if every one agrees.

    A value is put right in every time step; what is then the first wrong one is a cause of its own.
    """
    wrong = expected.wrong(trace(()))
    if not wrong:
        return None
    found: list[Cause] = []
    right: set[str] = set()
    while wrong and len(found) < MOST:
        part, allowed = wrong[0]
        cause = _cause(expected.located(part, allowed))
        # An equation that is wrong in a second layer is put right in all of them.
        again = cause.place and any(cause.place == other.place for other in found)
        found.append(cause)
        right |= expected.names_at(cause.place) if again else {part.name}
        instead = [
            (name, step, array)
            for (name, step), array in expected.values.items()
            if name in right and array.dtype.kind == "f"
        ]
        wrong = [(p, limit) for p, limit in expected.wrong(trace(instead)) if p.name not in right]
    return Causes(found, not wrong, _proof(len(found), [part.name for part, _ in wrong], reference))


def _proof(count: int, wrong: Sequence[str], reference: str) -> str:
    it = "it is the cause" if count == 1 else "these are the causes"
    its = "its place" if count == 1 else "their places"
    if not wrong:
        return f"with the values of {reference} in {its} everything else agrees: {it}"
    return f"with the values of {reference} in {its} {wrong[0]} still differs"


def _cause(location: Location) -> Cause:
    layer, _, name = location.value.rpartition("/")
    what = f"{name} of layer {layer}" if layer else location.value
    if location.step is not None:
        what += f", time step {location.step},"
    what += f" is the first wrong value{f': {location.reason}' if location.reason else ''}"
    error = None if location.reason else location.error
    return Cause("forward", what, (location.value,), location.place, error, location.hint)
