"""Yardsticks: the rounding noise of each tensor in a dtype, measured against the oracle.

numpy runs the same equations in the dtype several times. The runs differ in the order of summation
and in the last digits of functions such as exp (:data:`harness.oracle.oracle.ORDERS`). The largest
error of a tensor in these runs is its noise. Three more kinds of runs may increase the noise:

- runs with random rounding of each result (:class:`.rounding.Rounded`)
- a run with exact zeros for sums that are 0 in exact arithmetic (:class:`WithoutZeroSums`)
- runs with flipped comparisons, if rounding may flip them (:class:`.kinks.FlippedComparisons`)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, TypeVar

import numpy as np

from harness.arrays import Array, Arrays, widen
from harness.caching import noise_store
from harness.caching.noise_store import Noise
from harness.oracle.kinks import KINKS, ComparisonRecorder, FlippedComparisons, MaximumRecorder
from harness.oracle.oracle import ORDERS, TABLE, Oracle
from harness.oracle.rounding import (
    REPETITIONS,
    SHARE,
    Narrowed,
    Rounded,
    has_equal_rows,
    small_rounding_only,
)
from harness.oracle.tolerance import (
    FLOOR,
    PRECISION,
    VOID,
    Deviation,
    K,
    compare,
    kind_of,
    relative_error,
    rounding_only,
    rounding_only_noise,
    scales,
    spread,
    telling,
)
from harness.program.ir import Program
from harness.program.serial import digest
from harness.program.updates import UpdateRule
from harness.runtime.answers import Misfit, tensor
from harness.runtime.precision import host_dtype, narrow
from harness.runtime.session import Session

# Sums that are 0 in exact arithmetic, which some frameworks leave out of a gradient.
#
# A fused normalization does not compute ``sum(x - mean(x))`` in its backward pass, because this sum
# is 0. The derived gradient computes it. In float32 the result is the rounding error of the mean,
# which cancels the same error in other terms. Both gradients are correct. Runs with different
# orders of summation or random rounding do not show how much these gradients differ.

# A float64 sum that is at most VANISHING times the sum of its absolute terms consists only of
# rounding errors, even if each term is a difference of numbers that are a thousand times larger.
VANISHING = 2.0**-32

_sum = TABLE["sum"]


class ZeroSumRecorder(ComparisonRecorder):
    """The oracle with a record of comparisons, and of sums whose result is 0 in exact arithmetic.

    ``zeros`` has one item per sum, in order of execution: a boolean mask that marks the result's
    entries which are 0 in exact arithmetic, or None if there are no such entries. ``checksum``
    covers all arrays that sessions have passed to the oracle; it is None if
    :mod:`harness.caching.noise_store` is not used.
    """

    def __init__(self) -> None:
        super().__init__()
        self._table = {**self._table, "sum": self._recorded_sum}

    def forget(self) -> None:
        """Delete the record of comparisons, zeros and arrays."""
        super().forget()
        self.zeros: list[Array | None] = []
        self.checksum = hashlib.blake2b() if noise_store.current() is not None else None

    def tensor(self, array: Array) -> Array:
        """Return the array, and add it to ``checksum``."""
        if self.checksum is not None:
            noise_store.add_array(self.checksum, array)
        return super().tensor(array)

    def _recorded_sum(self, x: Array, **attributes: Any) -> Array:
        total = np.asarray(_sum(x, **attributes))
        zeros = None
        if total.dtype.kind == "f" and total.size < x.size:
            magnitude = np.asarray(_sum(np.abs(x), **attributes))
            zeros = (magnitude > 0) & (np.abs(total) <= VANISHING * magnitude)
        self.zeros.append(zeros if zeros is not None and zeros.any() else None)
        return total


class WithoutZeroSums(Oracle):
    """The oracle, but sums that are 0 in exact arithmetic return exactly 0.
    :class:`ZeroSumRecorder` has recorded these sums."""

    def __init__(self) -> None:
        super().__init__()
        self.begin(())
        self._table = {**self._table, "sum": self._exact_sum}

    def begin(self, zeros: Sequence[Array | None]) -> None:
        """Prepare a run of the program. ``zeros`` are the records of :class:`ZeroSumRecorder` from
        an earlier run."""
        self._zeros = iter(zeros)

    def _exact_sum(self, x: Array, **attributes: Any) -> Array:
        total, zero = np.asarray(_sum(x, **attributes)), next(self._zeros)
        return total if zero is None else np.where(zero, total.dtype.type(0), total)


Name = TypeVar("Name", bound=Hashable)
# A function that computes with a session and yields one or more mappings of values to compare.
Run = Callable[[Session], Iterable[Arrays]]
FEW, FAST = ("reversed",), ("halved",)
"""The orders of summation that are run for a large and for a huge model, in addition to "plain". In
float64, "plain" is the oracle itself and shows no rounding error."""
OTHERS = tuple(order for order in ORDERS if order != "plain")
# Rounding may flip a float32 comparison if the gap between its operands, relative to the larger
# operand, is at most SMALL_GAP or at most NOISE_GAP times the typical noise.
SMALL_GAP, NOISE_GAP = 1e-6, 6.0
NEXT = 1 + 1e-6  # the smallest gap times NEXT excludes only the comparison with this gap


@dataclass(frozen=True)
class Expected:
    """Expected results: a dictionary ``values`` from name to float64 array, and their rounding
    noise.

    ``measured(dtype)`` returns a dictionary from name to noise. ``dtype`` is float64 or float32, or
    the dtype of matrix products: bfloat16 or float16.
    """

    values: Arrays
    measured: Callable[[str], Noise]

    @staticmethod
    def within(values: Arrays, noise: Noise, dtype: str) -> Expected:
        """Return expected results with ``values`` whose ``noise`` in ``dtype`` is already known. In
        other dtypes, the noise is scaled by their precision. Values that are missing in ``noise``
        have noise 0."""

        def measured(base: str) -> Noise:
            return {n: noise.get(n, 0.0) * PRECISION[base] / PRECISION[dtype] for n in values}

        return Expected(values, measured)

    def noise(self, dtype: str) -> Noise:
        """Return the noise of each value in a dtype, relative to the scale of the value."""
        # numpy has no TF32, so the noise of TF32 is computed from the noise of float32.
        base = "float32" if dtype == "tf32" else dtype
        factor = PRECISION[dtype] / PRECISION[base]
        measured = self.measured(base)
        min_rounding_only = rounding_only_noise(dtype)
        rounding_only_noises = {
            n: max(measured.get(n, 0.0) * factor, min_rounding_only) for n in self._rounding_only
        }
        if dtype in ("float64", "float32"):
            return {**measured, **rounding_only_noises}
        # A backend that multiplies in a coarser dtype may round each value once to this dtype.
        min_noise = FLOOR * PRECISION[dtype]
        return {
            name: max(error * factor, min_noise) for name, error in measured.items()
        } | rounding_only_noises

    @cached_property
    def _rounding_only(self) -> list[str]:
        return rounding_only(self.values)

    def shows_agreement(self, name: str, dtype: str) -> bool:
        """Return whether the tensor ``name`` can show how well two computations agree; see
        :func:`.tolerance.telling`."""
        dtype_of_result = host_dtype(dtype)
        return telling(self.measured(dtype_of_result).get(name, 0.0), dtype_of_result)

    def deviations(self, actual: Mapping[str, object], dtype: str) -> list[Deviation]:
        """Compare the values ``actual`` with the expected values. Return one deviation for each
        expected name and for each unexpected name."""
        return compare(actual, self.values, self.noise(dtype), host_dtype(dtype))

    def spread(self, worst: Deviation, actual: Mapping[str, object]) -> Deviation:
        """Return the deviation ``worst`` with a histogram of the errors of its tensor, whose values
        are in ``actual``. If the tensor was not compared, return the deviation unchanged."""
        array = tensor(actual.get(worst.name))
        if worst.reason or worst.void or isinstance(array, Misfit):
            return worst
        values, scale = self.values[worst.name], scales(self.values)[worst.name]
        return replace(worst, spread=spread(array, values, scale, worst.tolerance))

    def at_least(self, floor: float, prefix: str = "") -> Expected:
        """Return the same values, but with a noise of at least ``floor`` for all names that start
        with ``prefix``. ``floor`` is for float32, and is scaled to the precision of other dtypes.
        """

        def measured(base: str) -> Noise:
            min_noise = floor * PRECISION[base]
            return {
                name: max(error, min_noise) if name.startswith(prefix) else error
                for name, error in self.measured(base).items()
            }

        return replace(self, measured=measured)

    def of_finite_gradients(self) -> Expected:
        """Return the same values. If one gradient is not finite, all gradients get infinite noise,
        so that they are not compared.

        Correct backends may differ in which gradients become NaN: ``0 * NaN`` is NaN, but ``where``
        may choose 0.
        """
        gradients = self.only("gradient.").values.values()
        if all(np.isfinite(gradient).all() for gradient in gradients):
            return self
        return self.at_least(np.inf, "gradient.")

    def where_rounding_decides(self) -> Expected:
        """Return the same values with more noise in narrow dtypes (e.g. bfloat16). If the noise of
        one tensor is so large that it is not compared, all tensors of the same kind (e.g. all
        gradients) get at least this noise.

        If the noise is so large, rounding may decide, for example, which entry of a softmax becomes
        1. For some tensors, the runs that measure noise may agree by luck.
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
        """Return only the values whose names start with one of ``prefixes``, e.g.
        ``"gradient."``."""
        values = {n: a for n, a in self.values.items() if n.startswith(prefixes)}
        return replace(self, values=values)


class Reference:
    """The oracle for one model, and the runs that measure its yardsticks.

    ``orders`` are the orders of summation to run in addition to "plain", e.g. "reversed". ``guard``
    returns a context manager that surrounds all computations, e.g. a time limit. ``kind`` maps a
    tensor's name to its group for :func:`at_least_typical`. ``rule`` is the update rule of the
    optimizer, if training is compared. Sessions keep no arrays after a computation.
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
        self._noise_oracles: dict[str, _NoiseOracles] = {}
        self._watching = ZeroSumRecorder()
        self.oracle = self._session(self._watching, "float64")

    def expect(self, run: Run) -> Expected:
        """Return the values that ``run(session)`` computes on the oracle. The noise of the values
        is measured later, when a caller first asks for it."""
        with self._guard():
            self._watching.forget()
            parts = (part for part in run(self.oracle))
            values = {n: widen(a) for part in parts for n, a in part.items()}
            positive_margin, zeros = self._watching.positive_margin, self._watching.zeros
            identity = self._identity(values)
            self._watching.forget()
            self.oracle.forget()

        def measure(dtype: str) -> Noise:
            with self._guard():
                return self._noise(run, values, positive_margin, zeros, dtype)

        @cache
        def measured(dtype: str) -> Noise:
            return noise_store.kept(identity and identity + dtype.encode(), lambda: measure(dtype))

        return Expected(values, measured)

    def _identity(self, values: Arrays) -> bytes:
        """Return a checksum of everything that determines the noise of ``values``, the results of
        the last run; return b"" if no noise is kept."""
        checksum = self._watching.checksum
        if checksum is None:
            return b""
        for name, array in values.items():
            checksum.update(f"{name}\0{self._kind(name)}\0".encode())
            noise_store.add_array(checksum, array)
        checksum.update(f"{self._programs_digest} {digest(self.oracle.rule)}".encode())
        checksum.update(noise_store.origin())
        return checksum.digest()

    @cached_property
    def _programs_digest(self) -> str:
        return " ".join([*map(digest, self._programs), *self._orders])

    def _noise(
        self,
        run: Run,
        values: Arrays,
        positive_margin: float,
        zeros: Sequence[Array | None],
        dtype: str,
    ) -> Noise:
        """Measure the noise of each value in ``dtype``: return a dictionary from name to noise.
        ``positive_margin`` (the smallest gap of a comparison) and ``zeros`` (sums that are 0) were
        recorded when ``run`` computed ``values`` in float64."""
        if dtype not in self._noise_oracles:
            orders = [Oracle(order) for order in self._orders]
            narrowed = [Narrowed(dtype)] if narrow(dtype) else []
            self._noise_oracles[dtype] = _NoiseOracles([*orders, *narrowed], Rounded(dtype))
        oracles = self._noise_oracles[dtype]
        errors = _LargestErrors(values, dtype, lambda oracle: self._parts(run, oracle, dtype))
        _add_rounding_errors(errors, oracles, is_narrow=bool(narrow(dtype)))
        # Not in float16: loss scaling adds more sums, so the recorded zeros do not fit the sums.
        if dtype != "float16" and any(zero is not None for zero in zeros):
            oracles.without_zero_sums.begin(zeros)
            # A backend that divides by such a sum must compute it.
            errors.add(oracles.without_zero_sums, finite=True)
        finite = [e for e in errors.largest.values() if np.isfinite(e)]
        typical_noise = float(np.median(finite or [0.0]))
        band = max(SMALL_GAP * PRECISION[dtype], NOISE_GAP * typical_noise)
        if positive_margin <= band:
            _add_errors_of_flips(errors, oracles.flipped, band)
        noise: dict[str, float] = dict(errors.largest)
        metrics = [name for name in noise if name.startswith("metric.")]
        if (
            metrics
            and narrow(dtype)
            and (
                positive_margin <= band or self._smallest_maximum_gap(run, oracles.maximum) <= band
            )
        ):
            # Rounding decides which class is the most likely, so a metric that counts correct
            # classes is not compared.
            noise |= dict.fromkeys(metrics, np.inf)
        noise = at_least_typical(noise, self._kind)
        gradients = [name for name in noise if name.startswith("gradient.")]
        if dtype == "float16" and not all(np.isfinite(noise[name]) for name in gradients):
            # If one gradient overflows float16, other gradients may overflow too.
            noise |= dict.fromkeys(gradients, np.inf)
        return noise

    def _parts(self, run: Run, oracle: Oracle, dtype: str) -> Iterator[Arrays]:
        session = self._session(oracle, dtype)
        yield from run(session)
        session.forget()

    def _smallest_maximum_gap(self, run: Run, oracle: MaximumRecorder) -> float:
        """Run ``run`` in float64. Return the smallest gap between the two largest entries in any
        call of ``max``."""
        oracle.forget()
        for _ in self._parts(run, oracle, "float64"):
            pass
        return oracle.gap

    def _session(self, oracle: Oracle, dtype: str) -> Session:
        """Return the session of an oracle. The session is created once and kept, because a new
        session would have to derive the gradient again."""
        if oracle not in self._sessions:
            self._sessions[oracle] = Session(
                oracle, *self._programs, path="derived", dtype=dtype, rule=self._rule
            )
        return self._sessions[oracle]


@dataclass(frozen=True)
class _NoiseOracles:
    """The oracles that measure noise in one dtype. Each of them computes the same values with
    different rounding errors or decisions."""

    orders: Sequence[Oracle]
    rounded: Rounded
    plain: ComparisonRecorder = field(default_factory=ComparisonRecorder)
    flipped: FlippedComparisons = field(default_factory=FlippedComparisons)
    maximum: MaximumRecorder = field(default_factory=MaximumRecorder)
    without_zero_sums: WithoutZeroSums = field(default_factory=WithoutZeroSums)


class _LargestErrors:
    """The largest error of each value in several runs.

    ``values`` are the exact values. ``parts(oracle)`` runs the computation on an oracle, and yields
    mappings of values to compare. ``largest`` maps each name to its largest error.
    """

    def __init__(
        self, values: Arrays, dtype: str, parts: Callable[[Oracle], Iterable[Arrays]]
    ) -> None:
        self._values, self._scale, self._parts = values, scales(values), parts
        self.largest = dict.fromkeys(values, 0.0)
        tiny_names = small_rounding_only(values)
        self.repetitions = REPETITIONS if tiny_names or has_equal_rows(values) else 1
        # Errors of these tensors are not multiplied by SHARE. Optimizers divide tensors in
        # `tiny_names` by their own size; in float64, all values depend on the result.
        self._undamped = (values if dtype == "float64" else tiny_names) if tiny_names else ()

    def add(self, oracle: Oracle, share: float = 1.0, finite: bool = False) -> None:
        """Run the computation on ``oracle``, and add its errors, multiplied by ``share``. With
        ``finite``, infinite errors are ignored."""
        undamped = self._undamped if share == SHARE else ()
        for part in self._parts(oracle):
            for name, array in part.items():
                error = relative_error(array, self._values[name], self._scale[name])
                if error <= (np.finfo(np.float64).max if finite else np.inf):
                    damped = error * (1.0 if name in undamped else share)
                    self.largest[name] = max(self.largest[name], damped)


def _add_rounding_errors(
    errors: _LargestErrors, oracles: _NoiseOracles, *, is_narrow: bool
) -> None:
    """Add the errors of a plain run, of runs with random rounding, and of other orders of
    summation. With ``is_narrow``, add those of matrix products alone, too."""
    oracles.plain.forget()
    errors.add(oracles.plain)
    for seed in range(errors.repetitions):
        oracles.rounded.begin(oracles.plain.decisions, seed)
        errors.add(oracles.rounded, SHARE)
    if is_narrow:
        oracles.rounded.begin(None)
        errors.add(oracles.rounded, SHARE)
    oracles.rounded.begin(())
    oracles.plain.forget()
    for oracle in oracles.orders:
        errors.add(oracle)


def _add_errors_of_flips(errors: _LargestErrors, flipped: FlippedComparisons, band: float) -> None:
    """Add the errors of runs that flip all comparisons whose gap is at most ``band``, and then all
    but the nearest, because two flips may cancel."""
    lower = 0.0
    for _ in range(2):
        flipped.begin(band, lower)
        # A flipped lower bound may give log(0), which no rounding error does.
        errors.add(flipped, 1 / KINKS, finite=True)
        lower = NEXT * flipped.nearest
        if lower >= flipped.furthest:
            break


def noise_between(
    values: Arrays, others: Arrays, kind: Callable[[str], str] = lambda name: ""
) -> Noise:
    """Return the noise of each value: the difference between ``values`` and ``others``, the results
    of two runs that differ only by rounding errors. ``kind`` maps a name to its group for
    :func:`at_least_typical`."""
    scale = scales(values)
    noise = {n: relative_error(others[n], a, scale[n]) for n, a in values.items()}
    return at_least_typical(noise, kind)


def at_least_typical(
    noise: Mapping[Name, float], kind: Callable[[Name], str] = lambda name: ""
) -> dict[Name, float]:
    """Return the noise of each value, raised to at least the median noise of its group. This is
    needed because the measured noise of a single number can be 0 by luck. Infinite noise stays
    infinite. ``kind`` maps a name to its group."""
    kinds: dict[str, list[float]] = {}
    for name, error in noise.items():
        if np.isfinite(error):
            kinds.setdefault(kind(name), []).append(error)
    typical = {name: float(np.median(errors)) for name, errors in kinds.items()}
    return {n: max(e, typical.get(kind(n), 0.0)) for n, e in noise.items()}
