"""The complete list of primitives, with their operands and results; see :mod:`.infer` for types.

If the Python array API standard (2024.12) has the same function, the primitive has the standard's
name and meaning. The standard lacks ``segment_sum``, ``one_hot``, ``constant``, ``extent``,
``stop_gradient`` and ``scan``. A backend must implement all primitives in :data:`TABLE`. Primitives
in :data:`OFFERED` are optional. A backend without them cannot run models that need them, except for
primitives in :data:`DERIVABLE`. Backends do not implement ``constant``, ``extent``, ``scan`` and
``call``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

TABLE: Mapping[str, str] = {
    "exp": "exp(x)",
    "log": "log(x): the natural logarithm",
    "tanh": "tanh(x)",
    "sqrt": "sqrt(x)",
    "negative": "-x",
    "add": "a + b",
    "subtract": "a - b",
    "multiply": "a * b",
    "divide": "a / b",
    "power": "a ** b",
    "less": "a < b",
    "less_equal": "a <= b",
    "equal": "a == b",
    "where": "a where the condition is true, else b; a and b have the same dtype, whichever it is",
    "astype": "x converted to floats of dtype; x is bool, indices, or floats of a supported dtype",
    "permute_dims": "axes in another order",
    "broadcast_to": "repeat along axes of length 1, and along new leading axes",
    "expand_dims": "a new axis of length 1",
    "squeeze": "remove one axis of length 1",
    "concat": "join along an axis; all operands have the same dtype, whichever it is",
    "slice": "start:stop along one axis (0 <= start <= stop <= length)",
    "flip": "reverse one axis",
    "take": "rows x[indices] of the first axis; x of any dtype",
    "take_along_axis": "x[..., indices] along the last axis, any number of indices per row; "
    "x of any dtype",
    "one_hot": "floats of dtype: 1 at the index, 0 elsewhere, on a new last axis",
    "segment_sum": "rows[i] = sum of x where indices == i: the transpose of take",
    "sum": "sum over a tuple of axes",
    "max": "maximum over a tuple of axes",
    "matmul": "matrix product over the last two axes",
    "tensordot": "sum of products over pairs of axes",
    "stop_gradient": "x; every derivative treats x as a constant",
}
OFFERED: Mapping[str, str] = {
    "arange": "the indices 0, 1, ... below stop",
    "reshape": "the same entries in the same order, in another shape",
    "erf": "erf(x), the error function: 2 / sqrt(pi) times the integral of exp(-t * t) from 0 to x",
    "sin": "sin(x)",
    "cos": "cos(x)",
    "floor": "the largest integer that is at most x, as a float",
    "windows": "the entries of each window along some axes, on new axes after the last of these",
    "overlap_add": "an array in which overlapping windows are added: the transpose of windows",
    "cumulative_sum": "the sum of each entry and all entries before it, along the last axis",
    "argsort": "indices that sort the last axis ascending; ties keep their order, NaN is last",
}
EVERY: Mapping[str, str] = {**TABLE, **OFFERED}
# Optional primitives that the harness makes from required primitives if a backend lacks them.
DERIVABLE = ("windows", "overlap_add")
# Elementwise primitives: each entry of the result depends on one entry of each operand.
UNARY = ("exp", "log", "tanh", "sqrt", "negative", "erf", "sin", "cos", "floor")
BINARY = ("add", "subtract", "multiply", "divide", "power")
COMPARISONS = ("less", "less_equal", "equal")
ELEMENTWISE = frozenset({*UNARY, *BINARY, *COMPARISONS, "where"})
# Pairs of optional primitives, each of which is needed for the derivative of the other.
_PAIRS = (("sin", "cos"), ("windows", "overlap_add"))
DERIVED: Mapping[str, str] = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}


def offers_needed(ops: Iterable[str]) -> set[str]:
    """Return the optional primitives that a backend must implement to run the operations ``ops``
    and the derivatives of these operations."""
    needed = {op for op in ops if op in OFFERED}
    return needed | {DERIVED[op] for op in needed if op in DERIVED}
