"""Faults of primitives that few models use: at certain values, beyond a size, or at ties."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.backends.numpy.primitives import PRIMITIVES
from harness_mutants import registry
from harness_mutants.numbers import rounded
from harness_mutants.registry import BOTH

FUNCTIONS = "functions"
primitive = partial(registry.primitive, everywhere=True)
_erf, _argsort, _windows = (PRIMITIVES[op] for op in ("erf", "argsort", "windows"))


@primitive("erf", "mlp", FUNCTIONS, BOTH)
def erf_ends_at_three_and_a_half(x: Array) -> Array:
    """erf of numbers above 3.5 is 1, which is off by up to 1e-6."""
    return np.where(np.abs(x) > 3.5, np.sign(x), _erf(x)).astype(x.dtype)


@primitive("erf", "mlp", FUNCTIONS)
def erf_by_five_terms(x: Array) -> Array:
    """erf is the approximation of Abramowitz and Stegun, with an error of 2e-7."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    terms = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    found = np.sign(x) * (1 - np.polyval((*terms, 0), t) * np.exp(-x * x))
    return np.asarray(found.astype(x.dtype))


@primitive("erf", "mlp", FUNCTIONS, BOTH)
def erf_of_small_numbers(x: Array) -> Array:
    """erf of numbers between -1e-5 and 1e-5 is 0."""
    return np.where(np.abs(x) < 1e-5, 0 * x, _erf(x)).astype(x.dtype)


@primitive("sin", "mlp", FUNCTIONS, BOTH)
def sin_beyond_64(x: Array) -> Array:
    """sin of angles above 64 or below -64 is 0."""
    return np.where(np.abs(x) > 64, 0 * x, np.sin(x)).astype(x.dtype)


@primitive("sin", "mlp", FUNCTIONS)
def sin_of_small_numbers(x: Array) -> Array:
    """sin of numbers between -1e-7 and 1e-7 is 0."""
    return np.where(np.abs(x) < 1e-7, 0 * x, np.sin(x)).astype(x.dtype)


@primitive("cos", "mlp", FUNCTIONS)
def cos_by_a_short_pi(x: Array) -> Array:
    """cos subtracts multiples of 2 pi that are rounded to float32."""
    turn = x.dtype.type(np.float32(2 * np.pi))
    return np.cos(x - np.round(x / turn) * turn)


@primitive("cos", "mlp", FUNCTIONS)
def cos_off_by_a_millionth(x: Array) -> Array:
    """cos is 1e-6 too large."""
    return np.cos(x) + x.dtype.type(1e-6)


@primitive("floor", "mlp", FUNCTIONS, BOTH)
def floor_toward_zero(x: Array) -> Array:
    """floor truncates, so negative numbers are rounded up."""
    return np.trunc(x)


@primitive("floor", "mlp", FUNCTIONS)
def floor_by_two_bytes(x: Array) -> Array:
    """floor converts to 16-bit integers, which saturate at 32,767."""
    return np.where(np.abs(x) > 32767, np.sign(x) * 32767, np.floor(x)).astype(x.dtype)


@primitive("floor", "mlp", FUNCTIONS)
def floor_drops_nan(x: Array) -> Array:
    """floor of NaN is 0, as after a conversion to integers."""
    return np.where(np.isnan(x), x.dtype.type(0), np.floor(x))


@primitive("floor", "mlp", FUNCTIONS, BOTH)
def floor_with_tolerance(x: Array) -> Array:
    """floor rounds up numbers that are at most 1e-6 below an integer."""
    return np.floor(x + x.dtype.type(1e-6))


@primitive("cumulative_sum", "mlp", FUNCTIONS, BOTH)
def running_sum_of_64(x: Array) -> Array:
    """A cumulative sum restarts after 64 entries."""
    found = np.cumsum(x, -1)
    if x.shape[-1] > 64:
        found[..., 64:] -= found[..., 63:64]
    return found


@primitive("cumulative_sum", "mlp", FUNCTIONS)
def running_sum_rounded_far(x: Array) -> Array:
    """After 128 entries, cumulative sums are rounded to bfloat16."""
    found = np.cumsum(x, -1)
    found[..., 128:] = rounded(found[..., 128:], 8)
    return found


@primitive("cumulative_sum", "mlp", FUNCTIONS, BOTH)
def running_sum_from_the_end(x: Array) -> Array:
    """A cumulative sum is the total minus later entries, so NaN spreads to earlier sums."""
    after = np.flip(np.cumsum(np.flip(x, -1), -1), -1) - x
    return np.asarray(np.sum(x, -1, keepdims=True) - after)


@primitive("argsort", "mlp", FUNCTIONS, BOTH)
def order_of_ties_beyond_16(x: Array) -> Array:
    """In rows of more than 16 entries, equal entries are sorted in reverse order."""
    count = x.shape[-1]
    return _argsort(x) if count <= 16 else count - 1 - _argsort(np.flip(x, -1))


@primitive("argsort", "mlp", FUNCTIONS, BOTH)
def order_with_nan_first(x: Array) -> Array:
    """NaN is sorted before all numbers."""
    return np.asarray(_argsort(np.where(np.isnan(x), -np.inf, x)))


@primitive("argsort", "mlp", FUNCTIONS, BOTH)
def order_of_signed_zeros(x: Array) -> Array:
    """Numbers are sorted by their bits, so -0 comes before 0."""
    return np.lexsort((~np.signbit(x), x), axis=-1)


@primitive("argsort", "mlp", FUNCTIONS, BOTH)
def order_by_float16(x: Array) -> Array:
    """Numbers are rounded to float16 before they are sorted."""
    with np.errstate(over="ignore"):
        return np.asarray(_argsort(x.astype(np.float16)))


@primitive("power", "mlp", FUNCTIONS, BOTH)
def power_of_negative_numbers(a: Array, b: Array) -> Array:
    """A power of a number below -3 is never negative."""
    found = np.asarray(np.power(a, b))
    return np.where(np.asarray(a) < -3, np.abs(found), found)


@primitive("power", "mlp", FUNCTIONS, BOTH)
def power_of_zero(a: Array, b: Array) -> Array:
    """0 to the power 0 is 0."""
    found = np.asarray(np.power(a, b))
    zero = (np.asarray(a) == 0) & (np.asarray(b) == 0)
    return np.where(zero, found.dtype.type(0), found)


@primitive("log", "mlp", FUNCTIONS, BOTH)
def log_of_denormals(x: Array) -> Array:
    """The logarithm treats denormal numbers of float32 as 0."""
    small = (x > 0) & (x < 2.0**-126)
    return np.where(small, x.dtype.type(-np.inf), np.log(x))


@primitive("log", "mlp", FUNCTIONS, BOTH)
def log_ends_at_1e38(x: Array) -> Array:
    """The logarithm of numbers above 1e38 is log(1e38)."""
    return np.log(np.where(np.isfinite(x), np.minimum(x, x.dtype.type(1e38)), x))


@primitive("sqrt", "mlp", FUNCTIONS, BOTH)
def sqrt_ends_at_1e38(x: Array) -> Array:
    """The square root of numbers above 1e38 is 1e19."""
    return np.where((x > 1e38) & np.isfinite(x), x.dtype.type(1e19), np.sqrt(x))


@primitive("tanh", "mlp", FUNCTIONS, BOTH)
def tanh_of_a_million(x: Array) -> Array:
    """tanh of numbers above 1e6 is NaN."""
    return np.where((np.abs(x) > 1e6) & np.isfinite(x), x.dtype.type(np.nan), np.tanh(x))


@primitive("max", "lenet", FUNCTIONS, BOTH)
def max_passes_over_nan(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """A maximum ignores NaN unless all entries are NaN."""
    return np.asarray(np.fmax.reduce(x, axis=axis, keepdims=keepdims))


@primitive("windows", "lenet", FUNCTIONS, BOTH)
def padding_of_minus_ten_thousand(x: Array, **framing: Any) -> Array:
    """Windows are padded with -10,000 instead of -inf."""
    found = np.asarray(_windows(x, **framing))
    low = framing["lowest"] and np.isneginf(found).any()
    return np.maximum(found, found.dtype.type(-1e4)) if low else found


@primitive("arange", "mlp", FUNCTIONS, BOTH)
def indices_in_a_byte(stop: int) -> Array:
    """``arange`` counts in bytes, which overflow at 256."""
    return np.arange(stop).astype(np.uint8).astype(np.int64)


@primitive("astype", "mlp", FUNCTIONS)
def indices_as_float16(x: Array, dtype: str) -> Array:
    """Indices are converted to float16, exact up to 2,048, and then to the dtype."""
    return np.asarray(x, np.float16 if x.dtype.kind == "i" else None).astype(dtype)
