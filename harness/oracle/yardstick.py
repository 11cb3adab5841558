"""Yardsticks: the rounding error of a dtype, measured against the oracle for each tensor.

numpy runs the same equations in the dtype in several correct ways: orders of summation, and last
places of transcendental functions (:data:`harness.oracle.oracle.ORDERS`). The largest error of a
tensor is its noise. Three more kinds of runs add to the noise:

- random rounding of each result (:class:`.rounding.Rounded`)
- exact zeros for sums that are zero by algebra (:class:`WithoutZeroSums`)
- turned comparisons, if rounding may turn them (:class:`.kinks.Wavering`)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, TypeVar

import numpy as np

from harness.arrays import Array, Arrays, widened
from harness.oracle.kinks import KINKS, Rivals, Watching, Wavering
from harness.oracle.oracle import ORDERS, TABLE, Oracle
from harness.oracle.rounding import SHARE, THROWS, Narrowed, Rounded, lucky, repeated
from harness.oracle.tolerance import (
    FLOOR,
    PRECISION,
    VOID,
    Deviation,
    K,
    compare,
    kind_of,
    noise_without_size,
    relative_error,
    scales,
    spread,
    telling,
    without_size,
)
from harness.program.ir import Program
from harness.program.updates import UpdateRule
from harness.runtime.answers import Misfit, tensor
from harness.runtime.precision import host_dtype, narrow
from harness.runtime.session import Session

# Sums that are zero by algebra: some frameworks leave them out of a gradient.
#
# A fused normalization does not compute ``sum(x - mean(x))`` in its backward pass, because that sum
# is zero. The derived gradient computes the sum. In float32 the sum holds the rounding error of the
# mean, which cancels the same error in other terms. Both ways are right. Orders of summation and
# random rounding do not show how far apart the two ways are.

# A sum in float64 this small beside the sum of its magnitudes holds nothing but rounding errors,
# even if its terms are differences of numbers a thousand times their size.
VANISHING = 2.0**-32

_sum = TABLE["sum"]


class ZeroSumWatching(Watching):
    """The oracle with a record of comparisons and of the entries of each sum that are zero by
    algebra.

    ``zeros`` has one boolean array per sum in the order of execution, or None for a sum without
    such entries.
    """

    def __init__(self) -> None:
        super().__init__()
        self._table = {**self._table, "sum": self._watched_sum}

    def forget(self) -> None:
        """Forget the recorded comparisons and zeros."""
        super().forget()
        self.zeros: list[Array | None] = []

    def _watched_sum(self, x: Array, **attributes: Any) -> Array:
        total = np.asarray(_sum(x, **attributes))
        zero = None
        if total.dtype.kind == "f" and total.size < x.size:
            magnitude = np.asarray(_sum(np.abs(x), **attributes))
            zero = (magnitude > 0) & (np.abs(total) <= VANISHING * magnitude)
        self.zeros.append(zero if zero is not None and zero.any() else None)
        return total


class WithoutZeroSums(Oracle):
    """The oracle with exact zeros for the entries that :class:`ZeroSumWatching` recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.begin(())
        self._table = {**self._table, "sum": self._exact_sum}

    def begin(self, zeros: Sequence[Array | None]) -> None:
        """Start a run of the same program, with the recorded zeros in the order of its sums."""
        self._zeros = iter(zeros)

    def _exact_sum(self, x: Array, **attributes: Any) -> Array:
        total, zero = np.asarray(_sum(x, **attributes)), next(self._zeros)
        return total if zero is None else np.where(zero, total.dtype.type(0), total)


Name = TypeVar("Name", bound=Hashable)
Noise = Mapping[str, float]
# Runs a session and yields the values to compare, by name, in one part or several.
Run = Callable[[Session], Iterable[Arrays]]
FEW = ("reversed",)
"""Orders for a large model. "plain" in float64 is the oracle itself, without any error of sums."""
OTHERS = tuple(order for order in ORDERS if order != "plain")
# float32 operands may compare the other way if their gap, relative to the largest, is below
# DOUBTFUL or below DOUBTS times the typical noise.
DOUBTFUL, DOUBTS = 1e-6, 6.0
NEXT = 1 + 1e-6  # times the nearest gap: leaves that comparison out


@dataclass(frozen=True)
class Expected:
    """Expected values by name in float64, with their noise. ``measured(dtype)`` returns the noise
    by name in float64, in float32, or with products in bfloat16 or float16."""

    values: Arrays
    measured: Callable[[str], Noise]

    @staticmethod
    def within(values: Arrays, noise: Noise, dtype: str) -> Expected:
        """Return values with a noise known in one dtype; a name without noise has 0."""

        def measured(base: str) -> Noise:
            return {n: noise.get(n, 0.0) * PRECISION[base] / PRECISION[dtype] for n in values}

        return Expected(values, measured)

    def noise(self, dtype: str) -> Noise:
        """Return the noise in a dtype by name, relative to the scale of the values."""
        # numpy has no TF32: its noise is scaled from float32.
        base = "float32" if dtype == "tf32" else dtype
        factor = PRECISION[dtype] / PRECISION[base]
        measured = self.measured(base)
        zero = noise_without_size(dtype)
        zeros = {n: max(measured.get(n, 0.0) * factor, zero) for n in self._without_size}
        if dtype in ("float64", "float32"):
            return {**measured, **zeros}
        # A backend that multiplies in a coarser dtype may round any value to it once.
        least = FLOOR * PRECISION[dtype]
        return {name: max(error * factor, least) for name, error in measured.items()} | zeros

    @cached_property
    def _without_size(self) -> list[str]:
        return without_size(self.values)

    def tells(self, name: str, dtype: str) -> bool:
        """Return whether the values of a name show how well two computations agree. See
        :func:`.tolerance.telling`."""
        kept = host_dtype(dtype)
        return telling(self.measured(kept).get(name, 0.0), kept)

    def deviations(self, found: Mapping[str, object], dtype: str) -> list[Deviation]:
        """Compare values by name: one deviation per expected tensor and per unexpected one."""
        return compare(found, self.values, self.noise(dtype), host_dtype(dtype))

    def spread(self, worst: Deviation, found: Mapping[str, object]) -> Deviation:
        """Return the deviation with the histogram of its error, if numbers were compared."""
        array = tensor(found.get(worst.name))
        if worst.reason or worst.void or isinstance(array, Misfit):
            return worst
        values, scale = self.values[worst.name], scales(self.values)[worst.name]
        return replace(worst, spread=spread(array, values, scale, worst.tolerance))

    def at_least(self, floor: float, prefix: str = "") -> Expected:
        """Return the same values with a minimum noise for the names that start with ``prefix``.
        ``floor`` is given for float32 and scaled to the other dtypes."""

        def measured(base: str) -> Noise:
            least = floor * PRECISION[base]
            return {
                name: max(error, least) if name.startswith(prefix) else error
                for name, error in self.measured(base).items()
            }

        return replace(self, measured=measured)

    def of_finite_gradients(self) -> Expected:
        """Give all gradients infinite noise if one of them is not finite. The form of a derivative
        (0 times NaN, or a choice of 0) decides to which other gradients a NaN spreads."""
        gradients = self.only("gradient.").values.values()
        if all(np.isfinite(gradient).all() for gradient in gradients):
            return self
        return self.at_least(np.inf, "gradient.")

    def where_rounding_decides(self) -> Expected:
        """In a narrow dtype, give each tensor at least the largest void noise of its kind.

        Rounding then decides which entry of a softmax becomes 1, and the measuring runs may agree
        by luck for some tensors.
        """

        def measured(base: str) -> Noise:
            noise, worst = self.measured(base), dict[tuple[str, str], float]()
            if not narrow(base):
                return noise
            for name, error in noise.items():
                if np.isfinite(error) and K * error >= VOID:
                    worst[kind_of(name)] = max(worst.get(kind_of(name), 0.0), error)
            return {n: max(e, worst.get(kind_of(n), 0.0)) for n, e in noise.items()}

        return replace(self, measured=measured)

    def only(self, *prefixes: str) -> Expected:
        """Return the values with names that start with one of ``prefixes``."""
        values = {n: a for n, a in self.values.items() if n.startswith(prefixes)}
        return replace(self, values=values)


class Reference:
    """The oracle and its yardsticks for one model. Sessions are left empty after each run.

    ``guard`` is entered around all work. ``orders`` are the members of :data:`OTHERS` to run
    besides the plain order. ``kind`` returns the kind of a name, as in :func:`at_least_typical`.
    """

    def __init__(
        self,
        training: Program,
        inference: Program,
        rule: UpdateRule | None = None,
        *,
        orders: Iterable[str] = OTHERS,
        kind: Callable[[str], str] = lambda name: "",
        guard: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self._programs, self._rule = (training, inference), rule
        self._orders, self._kind, self._guard = tuple(orders), kind, guard
        self._sessions: dict[Oracle, Session] = {}
        self._ways: dict[str, _Ways] = {}
        self._watching = ZeroSumWatching()
        self.oracle = self._session(self._watching, "float64")

    def expect(self, run: Run) -> Expected:
        """Return the values of ``run`` on the oracle; noise is measured on demand, part by part."""
        with self._guard():
            self._watching.forget()
            parts = (part for part in run(self.oracle))
            values = {n: widened(a) for part in parts for n, a in part.items()}
            doubt, zeros = self._watching.doubt, self._watching.zeros
            self._watching.forget()
            self.oracle.forget()

        @cache
        def measured(dtype: str) -> Noise:
            with self._guard():
                return self._noise(run, values, doubt, zeros, dtype)

        return Expected(values, measured)

    def _noise(
        self,
        run: Run,
        values: Arrays,
        doubt: float,
        zeros: Sequence[Array | None],
        dtype: str,
    ) -> Noise:
        scale, noise, few = scales(values), dict.fromkeys(values, 0.0), lucky(values)
        # The errors of these tensors count in full. Optimizers divide the few by their own size, so
        # in float64 all values depend on them.
        thrown = (values if dtype == "float64" else few) if few else ()

        def stray(session: Session, share: float = 1.0, most: float = np.inf) -> None:
            whole = thrown if share == SHARE else ()
            for part in run(session):
                for name, array in part.items():
                    error = relative_error(array, values[name], scale[name])
                    if error <= most:
                        noise[name] = max(noise[name], error * (1.0 if name in whole else share))
            session.forget()

        if dtype not in self._ways:
            orders = [Oracle(order) for order in self._orders]
            narrowed = [Narrowed(dtype)] if narrow(dtype) else []
            self._ways[dtype] = _Ways([*orders, *narrowed], Rounded(dtype))
        ways = self._ways[dtype]
        ways.plain.forget()
        stray(self._session(ways.plain, dtype))
        for coins in range(THROWS if few or repeated(values) else 1):
            ways.rounded.begin(ways.plain.decisions, coins)
            stray(self._session(ways.rounded, dtype), SHARE)
        if narrow(dtype):
            ways.rounded.begin(None)
            stray(self._session(ways.rounded, dtype), SHARE)
        ways.rounded.begin(())
        ways.plain.forget()
        for oracle in ways.orders:
            stray(self._session(oracle, dtype))
        # A float16 step also sums for its loss scaling: the recorded order does not apply.
        if dtype != "float16" and any(zero is not None for zero in zeros):
            ways.without_zero_sums.begin(zeros)
            # Without infinite errors: a backend that divides by such a sum cannot leave it out.
            stray(self._session(ways.without_zero_sums, dtype), 1.0, np.finfo(np.float64).max)
        typical = float(np.median([e for e in noise.values() if np.isfinite(e)] or [0.0]))
        band = max(DOUBTFUL * PRECISION[dtype], DOUBTS * typical)
        if doubt <= band:
            wavering, beyond = ways.wavering, 0.0
            for _ in range(2):  # all, then all but the nearest: two turned ones may cancel
                wavering.begin(band, beyond)
                # Without infinite errors: rounding turns no bound that keeps a logarithm from 0.
                stray(self._session(wavering, dtype), 1 / KINKS, np.finfo(np.float64).max)
                beyond = NEXT * wavering.nearest
                if beyond >= wavering.furthest:
                    break
        metrics = [name for name in noise if name.startswith("metric.")]
        if metrics and narrow(dtype) and (doubt <= band or self._rivals(run, ways.rivals) <= band):
            # Rounding then decides which class is the likeliest. No run measures the effect of that
            # on a metric that counts classes.
            noise |= dict.fromkeys(metrics, np.inf)
        noise = at_least_typical(noise, self._kind)
        gradients = [name for name in noise if name.startswith("gradient.")]
        if dtype == "float16" and not all(np.isfinite(noise[name]) for name in gradients):
            # If a product's gradient overflows float16, so may that of an added term.
            noise |= dict.fromkeys(gradients, np.inf)
        return noise

    def _rivals(self, run: Run, oracle: Rivals) -> float:
        """Return the smallest gap between the two largest entries of any maximum."""
        oracle.forget()
        session = self._session(oracle, "float64")
        for _ in run(session):
            pass
        session.forget()
        return oracle.gap

    def _session(self, oracle: Oracle, dtype: str) -> Session:
        """Return the session of an oracle, created once because each derives its own gradient."""
        if oracle not in self._sessions:
            self._sessions[oracle] = Session(
                oracle, *self._programs, path="derived", dtype=dtype, rule=self._rule
            )
        return self._sessions[oracle]


@dataclass(frozen=True)
class _Ways:
    """Oracles for one dtype, one for each way of computing."""

    orders: Sequence[Oracle]
    rounded: Rounded
    plain: Watching = field(default_factory=Watching)
    wavering: Wavering = field(default_factory=Wavering)
    rivals: Rivals = field(default_factory=Rivals)
    without_zero_sums: WithoutZeroSums = field(default_factory=WithoutZeroSums)


def apart(values: Arrays, others: Arrays, kind: Callable[[str], str] = lambda name: "") -> Noise:
    """Return the distance by name between two runs that differ only by rounding. ``kind`` is as in
    :func:`at_least_typical`."""
    scale = scales(values)
    found = {n: relative_error(others[n], a, scale[n]) for n, a in values.items()}
    return at_least_typical(found, kind)


def at_least_typical(
    noise: Mapping[Name, float], kind: Callable[[Name], str] = lambda name: ""
) -> dict[Name, float]:
    """Raise each noise to the median of its kind: a single number can be right by luck. Noise that
    is not finite stays, because the dtype has no answer there."""
    kinds: dict[str, list[float]] = {}
    for name, error in noise.items():
        if np.isfinite(error):
            kinds.setdefault(kind(name), []).append(error)
    typical = {name: float(np.median(errors)) for name, errors in kinds.items()}
    return {n: max(e, typical.get(kind(n), 0.0)) for n, e in noise.items()}
