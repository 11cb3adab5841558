"""The yardstick: how far float32 itself strays from the oracle, tensor by tensor.

It is measured, never assumed: the same equations are run by numpy in float32 in several ways that
are all right (orders of summation, last places of transcendental functions; see
:data:`harness.oracle.oracle.ORDERS`), and the largest error of a tensor is its noise.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from harness.arrays import Arrays
from harness.oracle.tolerance import relative_error, scales
from harness.runtime.session import Session

K = TypeVar("K", bound=Hashable)
# What is compared: of a session, values by name, in one part or in several.
Run = Callable[[Session], Iterable[Arrays]]


@dataclass(frozen=True)
class Expected:
    """Values by name in float64, and their noise in float32."""

    values: Arrays
    noise: Mapping[str, float]

    def only(self, *prefixes: str) -> Expected:
        """The part whose names start so."""
        values = {n: a for n, a in self.values.items() if n.startswith(prefixes)}
        return Expected(values, self.noise)


def expect(
    run: Run,
    oracle: Session,
    yardsticks: Iterable[tuple[Session, float]],
    kind: Callable[[str], str] = lambda name: "",
) -> Expected:
    """The values of ``run`` on the oracle, and how far the yardsticks stray from them.

    Each yardstick comes with the share of its error that counts. Sessions are left empty, and of
    several parts those of a yardstick are held one at a time. ``kind`` is that of a name, as in
    :func:`at_least_typical`.
    """
    values = {n: np.asarray(a, np.float64) for part in run(oracle) for n, a in part.items()}
    oracle.forget()
    scale = scales(values)
    noise = dict.fromkeys(values, 0.0)
    for session, share in yardsticks:
        for part in run(session):
            for name, array in part.items():
                error = relative_error(array, values[name], scale[name])
                noise[name] = max(noise[name], error * share)
        session.forget()
    return Expected(values, at_least_typical(noise, kind))


def at_least_typical(
    noise: Mapping[K, float], kind: Callable[[K], str] = lambda name: ""
) -> dict[K, float]:
    """No noise is below the median of its kind: a single number can be right by luck."""
    finite = {n: e if np.isfinite(e) else 0.0 for n, e in noise.items()}
    kinds: dict[str, list[float]] = {}
    for name, error in finite.items():
        kinds.setdefault(kind(name), []).append(error)
    typical = {name: float(np.median(errors)) for name, errors in kinds.items()}
    return {n: max(e, typical[kind(n)]) for n, e in finite.items()}
