"""Why moving statistics of a model of a user's own part from those of the spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from harness.arrays import Array, Arrays
from harness.checking.own_model.guesses import Hint
from harness.oracle.case import Case
from harness.program.signature import owner_of

PREFIX = "statistics."
# How much of what is told apart a fit may leave, and how near to a whole number a count is.
LEFT, WHOLE = 1e-4, 1e-2


def moved_otherwise(
    case: Case, moved: Mapping[str, tuple[Array, Array]], names: Sequence[str]
) -> Hint:
    """Another momentum, or the variance of a sample, if that is all that is wrong.

    Args:
        case: The spec's numbers.
        moved: By ``statistics.NAME`` what the model has made, and what the spec makes.
        names: What is wrong.
    """
    wrong = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
    if len(wrong) < len(names) or not wrong:
        return Hint("")
    before = case.material.statistics
    found = {n: moved[f"{PREFIX}{n}"] for n in wrong if f"{PREFIX}{n}" in moved}
    if len(found) < len(wrong) or not all(map(_comparable, found.values())):
        return Hint("")
    others = {*_momenta(case, found, before)}
    if len(others) == 1 and None not in others:
        own, other = next(pair for pair in others if pair)
        layers = tuple(dict.fromkeys(map(owner_of, wrong)))
        return Hint.of_attribute("momentum", layers, other, own)
    if all(_of_a_sample(*found[n], before[n]) for n in wrong):
        words = "It moves towards the variance of a sample, which is n / (n - 1) times that of a"
        return Hint(f"{words} batch of n, as torch's BatchNorm does")
    return Hint("")


def _comparable(pair: tuple[Array, Array]) -> bool:
    made, wanted = pair
    return made.shape == wanted.shape and bool(np.isfinite(made).all())


def _momenta(
    case: Case, found: Mapping[str, tuple[Array, Array]], before: Arrays
) -> Iterator[tuple[float, float] | None]:
    """The momentum of the spec and the one that explains what was made, of each tensor; None where
    none does."""
    own = {
        str(node.attributes["instance"]): node.attributes["attributes"].get("momentum")
        for node in case.training.calls
        if "instance" in node.attributes
    }
    for name, (made, wanted) in found.items():
        momentum = own.get(owner_of(name))
        if not isinstance(momentum, float | int):
            yield None
            continue
        way = (before[name] - wanted).ravel()
        share = float(way @ (made - wanted).ravel() / (way @ way)) if way.any() else 0.0
        left = np.abs(made - wanted - share * (before[name] - wanted)).max()
        fits = left <= LEFT * np.abs(made - wanted).max()
        other = round(momentum + share * (1 - momentum), 6)
        yield (momentum, other) if fits else None


def _of_a_sample(made: Array, wanted: Array, before: Array) -> bool:
    """Whether what was made is the spec's with more of the batch's variance, by 1 in n - 1."""
    off = (made - wanted).ravel()
    known = np.stack([wanted.ravel(), before.ravel()], 1)
    if len(off) < 3 or not off.any():
        return False
    shares = np.linalg.lstsq(known, off, rcond=None)[0]
    left = np.abs(off - known @ shares).max()
    count = 1 + 1 / shares[0] if shares[0] > 0 else 0.0
    return bool(left <= LEFT * np.abs(off).max() and abs(count - round(count)) < WHOLE * count)
