"""Initial values of parameters: how each law is drawn, and how a drawn array is checked.

All values are drawn here, in float64, from a seed and the parameter's name, and are handed to
every backend: frameworks differ in their generators, not in what is compared.

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
| orthogonal | orthonormal rows or columns, the fewer | Saxe, McClelland, Ganguli 2014 |

N has its standard deviation second. T(std) is Keras' truncated normal: redrawn until within two
deviations, then divided by .8796 so that its standard deviation is std; so none passes 2.2737 std.
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
from harness.language.distributions import (
    Fixed,
    Independent,
    Moments,
    Orthogonal,
    Shape,
    constant,
    identity_matrix,
    limited,
    normal,
    truncated_normal,
    uniform,
    uniform_fan,
)

Distribution = Fixed | Independent | Orthogonal
_Entry = tuple[tuple[str, ...], Callable[["Law"], Distribution]]


def _by_fan_in(scale: float, family: Callable[[float], Independent]) -> _Entry:
    return (), lambda law: family(math.sqrt(scale / law.fan_in))


def _by_both_fans(scale: float, family: Callable[[float], Independent]) -> _Entry:
    return (), lambda law: family(math.sqrt(scale / (law.fan_in + law.fan_out)))


_TABLE: dict[str, _Entry] = {
    "zeros": ((), lambda law: constant(0.0)),
    "ones": ((), lambda law: constant(1.0)),
    "constant": (("value",), lambda law: constant(law.arguments["value"])),
    "identity": ((), lambda law: Fixed(identity_matrix)),
    "uniform": (("low", "high"), lambda law: uniform(law.arguments["low"], law.arguments["high"])),
    "normal": (("std",), lambda law: normal(law.arguments["std"])),
    "uniform_fan": (("fan",), lambda law: uniform_fan(law.arguments["fan"])),
    "glorot_uniform": _by_both_fans(6, limited),
    "glorot_normal": _by_both_fans(2, truncated_normal),
    "he_uniform": _by_fan_in(6, limited),
    "he_normal": _by_fan_in(2, truncated_normal),
    "he_normal_untruncated": _by_fan_in(2, normal),
    "lecun_uniform": _by_fan_in(3, limited),
    "lecun_normal": _by_fan_in(1, truncated_normal),
    "orthogonal": ((), lambda law: Orthogonal()),
}


@dataclass(frozen=True)
class Law:
    """An initializer's name, the fans of its parameter, and its arguments (exactly the required).

    Raises:
        UsageError: an unknown name, a missing, unknown or impossible argument, a fan below 1.
    """

    name: str
    fan_in: int
    fan_out: int
    arguments: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = arguments(self.name)
        if set(self.arguments) != set(wanted):
            raise UsageError(
                f"initializer {self.name!r} takes {list(wanted) or 'no arguments'}, "
                f"not {sorted(self.arguments)}"
            )
        for name, value in self.arguments.items():
            if not math.isfinite(value):
                raise UsageError(f"{name} of {self.name!r} must be finite, not {value}")
        for name in ("fan_in", "fan_out"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        self.distribution()

    def distribution(self) -> Distribution:
        """What the entries follow."""
        return _TABLE[self.name][1](self)


def names() -> tuple[str, ...]:
    """The names of all initializers."""
    return tuple(_TABLE)


def arguments(name: str) -> tuple[str, ...]:
    """The arguments that an initializer requires; there are no optional ones.

    Raises:
        UsageError: no initializer has that name.
    """
    if name not in _TABLE:
        raise UsageError(
            f"unknown initializer {name!r}{did_you_mean(name, _TABLE)}; "
            f"allowed are {', '.join(_TABLE)}"
        )
    return _TABLE[name][0]


def generator(seed: int, name: str) -> np.random.Generator:
    """The generator of one named array: other names and seeds give independent streams."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def draw(law: Law, shape: Shape, generator: np.random.Generator) -> FloatArray:
    """Initial values of that shape.

    Raises:
        UsageError: the law needs a matrix and ``shape`` is none (identity, orthogonal).
    """
    return law.distribution().draw(shape, generator)


def expected(law: Law, shape: Shape) -> Moments:
    """The mean, std and bound of the entries of an array of that shape.

    Raises:
        UsageError: as ``draw``.
    """
    return law.distribution().moments(shape)


def check_law(values: npt.ArrayLike, law: Law) -> str | None:
    """How ``values`` contradict the law, or None.

    Range, mean, std and the whole distribution are tested, or every value where the law leaves
    no choice. Right values are blamed less than once in 10 million calls, at any size; a std that
    is off by sqrt(3) is seen from some 400 values on.

    Raises:
        UsageError: as ``draw``; or there are no values.
    """
    array = np.asarray(values, dtype=np.float64)
    if not array.size:
        raise UsageError(f"there are no values of {law.name} to check: shape {list(array.shape)}")
    if not np.isfinite(array).all():
        return f"{int((~np.isfinite(array)).sum())} of {array.size} values are not finite"
    return law.distribution().fault(array)
