"""Distributions of initial parameters: drawing, and statistical tests of drawn values.

The harness draws all values in float64, from a seed and the parameter's name, and passes them to
every backend. The random generators of the frameworks are not used.

| name | entries | source |
|---|---|---|
| zeros, ones, constant(value) | 0, 1, value | |
| identity | 1 where row = column, else 0; need not be square | Le, Jaitly, Hinton 2015 |
| uniform(low, high) | U(low, high) | |
| normal(std) | N(0, std), not truncated | |
| uniform_fan(fan) | U(-a, a), a = 1 / sqrt(fan) | torch.nn: Linear (inputs), RNNs (units) |
| glorot_uniform | U(-a, a), a = sqrt(6 / (fan_in + fan_out)) | Glorot, Bengio 2010 |
| glorot_normal | T(sqrt(2 / (fan_in + fan_out))) | Glorot, Bengio 2010 |
| he_uniform | U(-a, a), a = sqrt(6 / fan_in) | He, Zhang, Ren, Sun 2015 |
| he_normal | T(sqrt(2 / fan_in)) | the same, as Keras draws it |
| he_normal_untruncated | N(0, sqrt(2 / fan_in)) | the same |
| lecun_uniform | U(-a, a), a = sqrt(3 / fan_in) | LeCun, Bottou, Orr, Mueller 1998 |
| lecun_normal | T(sqrt(1 / fan_in)) | the same |
| orthogonal | orthonormal rows or columns, whichever are fewer | Saxe, McClelland, Ganguli 2014 |

The second argument of N is its standard deviation. T(std) is Keras' truncated normal: redrawn until
within two deviations, then divided by .8796 so that its standard deviation is std. No value exceeds
2.2737 std.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from harness.arrays import FloatArray
from harness.errors import UsageError, did_you_mean

Shape = tuple[int, ...]

# Standard deviation of N(0, 1) truncated to the range from -2 to 2.
TRUNCATED_STD = 0.87962566103423978
# Logarithm of the probability that a single test rejects correct values. `check_values` makes at
# most 6 tests (the tests of the range and of the std have two sides), so the total is below 6e-8.
LOG_ALARM = math.log(1e-8)
# Allowed relative error of values, because a backend may have rounded them to float32.
RELATIVE_ROUNDING = 1e-6
# Allowed deviation from orthonormal rows. A QR factor in float32 deviates by about 1e-6 at the
# sizes of recurrent layers.
ORTHONORMAL_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Fixed:
    """A distribution whose entries are not random, e.g. zeros. ``array(shape)`` returns the
    entries."""

    array: Callable[[Shape], FloatArray]

    def draw(self, shape: Shape, generator: np.random.Generator) -> FloatArray:
        return self.array(shape)

    def describe_fault(self, values: FloatArray) -> str | None:
        expected = self.array(values.shape)
        wrong = np.argwhere(np.abs(values - expected) > RELATIVE_ROUNDING * np.abs(expected))
        if not len(wrong):
            return None
        place = tuple(int(axis) for axis in wrong[0])
        return (
            f"{len(wrong)} of {values.size} values are wrong, the first at {list(place)}: "
            f"{values[place]:.7g}, expected {expected[place]:.7g}"
        )


@dataclass(frozen=True)
class Independent:
    """A distribution of independent entries that is symmetric about ``mean``.

    No entry differs from the mean by more than ``bound`` (None: no limit). ``sample(generator,
    count)`` draws numbers with mean 0 and standard deviation 1, which are then multiplied by
    ``std`` and added to the mean. ``cdf(z)`` is the probability that such a number, before scaling,
    is below z.
    """

    mean: float
    std: float
    bound: float | None
    sample: Callable[[np.random.Generator, int], FloatArray]
    cdf: Callable[[float], float]

    def draw(self, shape: Shape, generator: np.random.Generator) -> FloatArray:
        return self.mean + self.std * self.sample(generator, math.prod(shape)).reshape(shape)

    def describe_fault(self, values: FloatArray) -> str | None:
        deviations = np.sort((values.ravel() - self.mean) / self.std)
        for test in (
            _describe_range_fault,
            _describe_mean_fault,
            _describe_std_fault,
            _describe_shape_fault,
        ):
            if (fault := test(deviations, self)) is not None:
                return fault
        return None


@dataclass(frozen=True)
class Orthogonal:
    """The distribution of random orthonormal matrices: the rows or the columns are orthonormal,
    whichever are fewer.

    Arrays with more than two axes are reshaped to ``[product of all axes but the last, last]``.
    """

    def draw(self, shape: Shape, generator: np.random.Generator) -> FloatArray:
        rows, columns = _as_matrix(shape)
        normal = generator.standard_normal((max(rows, columns), min(rows, columns)))
        factor, triangle = np.linalg.qr(normal)
        # QR does not determine these signs; fixing them makes all directions equally likely.
        factor = factor * np.where(np.diag(triangle) < 0, -1.0, 1.0)
        return np.ascontiguousarray(factor.T if rows < columns else factor).reshape(shape)

    def describe_fault(self, values: FloatArray) -> str | None:
        rows, columns = _as_matrix(values.shape)
        matrix = values.reshape(rows, columns)
        gram = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
        gram.flat[:: len(gram) + 1] -= 1.0  # subtract the identity in place
        error = float(np.abs(gram).max())
        if error > ORTHONORMAL_TOLERANCE:
            vectors = "rows" if rows <= columns else "columns"
            return f"the {vectors} are not orthonormal: their products are off by {error:.3g}"
        # Each entry, and the normalised sum of all entries, is distributed like a coordinate of a
        # random unit vector in n dimensions. Its magnitude exceeds t with a probability of at most
        # 2 exp(-n t^2 / 2). An identity matrix fails this test.
        size = max(rows, columns)
        for name, value, count in (
            ("largest entry", float(np.abs(matrix).max()), values.size),
            ("normalised sum", abs(float(matrix.sum())) / math.sqrt(rows * columns), 1),
        ):
            limit = math.sqrt(2 * (math.log(2 * count) - LOG_ALARM) / size)
            if value > limit:
                return f"the direction is not random: {name} {value:.4g}, at most {limit:.4g}"
        return None


def _as_matrix(shape: Shape) -> tuple[int, int]:
    if len(shape) < 2:
        raise UsageError(f"orthogonal needs at least two axes, found {len(shape)}")
    return math.prod(shape[:-1]), shape[-1]


# The tests below get the deviations from the mean in ascending order, divided by the std of the
# distribution. Their limits hold for any number of values, because no distribution here has heavier
# tails than the normal distribution.


def _describe_range_fault(deviations: FloatArray, law: Independent) -> str | None:
    count = len(deviations)
    largest = float(np.abs(deviations[[0, -1]]).max())

    def inside(reach: float) -> float:
        return law.cdf(reach) - law.cdf(-reach)

    # Too far out: P(any value beyond) <= count * P(one value beyond). Too close to the mean:
    # P(all values inside) = P(one value inside) ** count.
    if count * (1 - inside(largest / (1 + RELATIVE_ROUNDING))) < math.exp(LOG_ALARM):
        kind = "large"
    elif count * math.log(max(inside(largest * (1 + RELATIVE_ROUNDING)), 1e-300)) < LOG_ALARM:
        kind = "small"
    else:
        return None
    bound = "" if law.bound is None else f"; the bound is {law.bound:.6g}"
    return (
        f"the largest distance from {law.mean:g} is {largest * law.std:.6g}, too {kind} for "
        f"{count} values{bound}"
    )


def _describe_mean_fault(deviations: FloatArray, law: Independent) -> str | None:
    mean = float(deviations.mean())
    limit = math.sqrt(2 * (math.log(2) - LOG_ALARM) / len(deviations))
    if abs(mean) <= limit:
        return None
    return (
        f"the mean is {law.mean + mean * law.std:.6g}, expected {law.mean:.6g} "
        f"+- {limit * law.std:.2g}"
    )


def _describe_std_fault(deviations: FloatArray, law: Independent) -> str | None:
    count = len(deviations)
    square = float(deviations @ deviations)
    # This limit is from Laurent and Massart 2000, lemma 1, for normal entries. For other entries it
    # is wider than Bernstein's bound.
    limit = 2 * math.sqrt(-count * LOG_ALARM) - 2 * LOG_ALARM
    if abs(square - count) <= limit:
        return None
    return (
        f"the standard deviation is {law.std * math.sqrt(square / count):.6g}, "
        f"expected {law.std:.6g}"
    )


def _describe_shape_fault(deviations: FloatArray, law: Independent) -> str | None:
    count = len(deviations)
    # Test at most 4096 order statistics, to limit the time.
    places = np.unique(np.linspace(0, count - 1, min(count, 4096)).astype(np.int64))
    expected = np.array([law.cdf(float(value)) for value in deviations[places]])
    gap = float(np.maximum((places + 1) / count - expected, expected - places / count).max())
    # The Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant.
    limit = math.sqrt((math.log(2) - LOG_ALARM) / (2 * count))
    if gap <= limit:
        return None
    return f"the distribution has a different shape: its CDF is off by {gap:.3g}, limit {limit:.3g}"


def identity_matrix(shape: Shape) -> FloatArray:
    """Return a matrix with ones on the diagonal and zeros elsewhere. It need not be square.

    Raises:
        UsageError: the shape does not have two axes.
    """
    if len(shape) != 2:
        raise UsageError(f"identity needs two axes, found {len(shape)}")
    return np.eye(*shape)


def constant(value: float) -> Fixed:
    """Return the distribution whose entries all equal ``value``."""
    return Fixed(lambda shape: np.full(shape, value, dtype=np.float64))


def uniform(low: float, high: float) -> Independent:
    """Return the uniform distribution from ``low`` to ``high``.

    Raises:
        UsageError: low is not below high.
    """
    if not low < high:
        raise UsageError(f"uniform needs low < high, found low = {low:g} and high = {high:g}")
    root = math.sqrt(3)
    half = (high - low) / 2
    return Independent(
        mean=(low + high) / 2,
        std=half / root,
        bound=half,
        sample=lambda generator, count: generator.uniform(-root, root, count),
        cdf=lambda z: min(max((z / root + 1) / 2, 0.0), 1.0),
    )


def symmetric_uniform(limit: float) -> Independent:
    """Return the uniform distribution from ``-limit`` to ``limit``."""
    return uniform(-limit, limit)


def _normal_cdf(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def normal(std: float) -> Independent:
    """Return the normal distribution with mean 0 and standard deviation ``std``, not truncated.

    Raises:
        UsageError: std is not above 0.
    """
    if not std > 0:
        raise UsageError(f"normal needs std > 0, found {std:g}")
    return Independent(
        mean=0.0,
        std=std,
        bound=None,
        sample=lambda generator, count: generator.standard_normal(count),
        cdf=_normal_cdf,
    )


def truncated_normal(std: float) -> Independent:
    """Return the truncated normal distribution of Keras: cut off at two standard deviations, then
    rescaled so that its standard deviation is ``std``."""
    inside = _normal_cdf(2) - _normal_cdf(-2)

    def sample(generator: np.random.Generator, count: int) -> FloatArray:
        values = generator.standard_normal(count)
        outside = np.flatnonzero(np.abs(values) > 2)
        while outside.size:
            values[outside] = generator.standard_normal(outside.size)
            outside = outside[np.abs(values[outside]) > 2]
        return values / TRUNCATED_STD

    def cdf(z: float) -> float:
        cut = min(max(z * TRUNCATED_STD, -2.0), 2.0)
        return (_normal_cdf(cut) - _normal_cdf(-2)) / inside

    return Independent(0.0, std, 2 * std / TRUNCATED_STD, sample, cdf)


def uniform_fan(fan: float) -> Independent:
    """Return the uniform distribution from -a to a, with a = 1 / sqrt(fan).

    Raises:
        UsageError: fan is not above 0.
    """
    if not fan > 0:
        raise UsageError(f"uniform_fan needs fan > 0, found {fan:g}")
    return symmetric_uniform(1 / math.sqrt(fan))


Distribution = Fixed | Independent | Orthogonal
_Entry = tuple[tuple[str, ...], Callable[["Law"], Distribution]]


def _by_fan_in(scale: float, family: Callable[[float], Independent]) -> _Entry:
    return (), lambda law: family(math.sqrt(scale / law.fan_in))


def _by_both_fans(scale: float, family: Callable[[float], Independent]) -> _Entry:
    return (), lambda law: family(math.sqrt(scale / (law.fan_in + law.fan_out)))


_INITIALIZERS: dict[str, _Entry] = {
    "zeros": ((), lambda law: constant(0.0)),
    "ones": ((), lambda law: constant(1.0)),
    "constant": (("value",), lambda law: constant(law.arguments["value"])),
    "identity": ((), lambda law: Fixed(identity_matrix)),
    "uniform": (("low", "high"), lambda law: uniform(law.arguments["low"], law.arguments["high"])),
    "normal": (("std",), lambda law: normal(law.arguments["std"])),
    "uniform_fan": (("fan",), lambda law: uniform_fan(law.arguments["fan"])),
    "glorot_uniform": _by_both_fans(6, symmetric_uniform),
    "glorot_normal": _by_both_fans(2, truncated_normal),
    "he_uniform": _by_fan_in(6, symmetric_uniform),
    "he_normal": _by_fan_in(2, truncated_normal),
    "he_normal_untruncated": _by_fan_in(2, normal),
    "lecun_uniform": _by_fan_in(3, symmetric_uniform),
    "lecun_normal": _by_fan_in(1, truncated_normal),
    "orthogonal": ((), lambda law: Orthogonal()),
}


@dataclass(frozen=True)
class Law:
    """An initializer (``name``) with its arguments, and the fan-in and fan-out of a parameter.
    Together they determine the distribution of the parameter's entries.

    Raises:
        UsageError: the name is unknown, an argument is wrong or missing, or a fan size is below 1.
    """

    name: str
    fan_in: int
    fan_out: int
    arguments: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        needed = argument_names(self.name)
        if set(self.arguments) != set(needed):
            raise UsageError(
                f"initializer {self.name!r} takes {list(needed) or 'no arguments'}, "
                f"found {sorted(self.arguments)}"
            )
        for name, value in self.arguments.items():
            if not math.isfinite(value):
                raise UsageError(f"{name} of {self.name!r} must be finite, found {value}")
        for name in ("fan_in", "fan_out"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, found {getattr(self, name)}")
        self.distribution()

    def check_axes(self, count: int) -> None:
        """Check that the initializer supports parameters with ``count`` axes.

        Raises:
            UsageError: the initializer needs a matrix.
        """
        matrix_check = {"identity": identity_matrix, "orthogonal": _as_matrix}.get(self.name)
        if matrix_check is not None:
            matrix_check((1,) * count)

    def distribution(self) -> Distribution:
        """Return the distribution of the parameter's entries."""
        return _INITIALIZERS[self.name][1](self)


def names() -> tuple[str, ...]:
    """Return the names of all initializers."""
    return tuple(_INITIALIZERS)


def argument_names(name: str) -> tuple[str, ...]:
    """Return the names of the arguments that the initializer ``name`` requires, e.g. ``("std",)``
    for ``normal``.

    Raises:
        UsageError: no initializer has that name.
    """
    if name not in _INITIALIZERS:
        raise UsageError(
            f"unknown initializer {name!r}{did_you_mean(name, _INITIALIZERS)}; "
            f"allowed are {', '.join(_INITIALIZERS)}"
        )
    return _INITIALIZERS[name][0]


def generator(seed: int, name: str) -> np.random.Generator:
    """Return the random generator of a parameter, by seed and parameter name. Generators with
    different names or seeds are independent."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def draw(law: Law, shape: Shape, generator: np.random.Generator) -> FloatArray:
    """Draw the initial values of a parameter with this shape from the distribution ``law``.

    Raises:
        UsageError: the initializer (identity, orthogonal) cannot be used for this number of axes.
    """
    return law.distribution().draw(shape, generator)


def check_values(values: npt.ArrayLike, law: Law) -> str | None:
    """Return a message if ``values`` are probably not from the distribution ``law``, otherwise
    None.

    The tests compare the range, the mean, the standard deviation and the cumulative distribution of
    the values with ``law``. If the distribution is not random, all values are compared. Correct
    values fail less than once in 10 million calls. With at least about 400 values, a standard
    deviation that is wrong by a factor of sqrt(3) is detected.

    Raises:
        UsageError: there are no values, or the shape is wrong for the initializer.
    """
    array = np.asarray(values, dtype=np.float64)
    if not array.size:
        raise UsageError(f"there are no values of {law.name} to check: shape {list(array.shape)}")
    if not np.isfinite(array).all():
        return f"{int((~np.isfinite(array)).sum())} of {array.size} values are not finite"
    return law.distribution().describe_fault(array)
