"""Mixed precision: products in a narrow dtype, everything else in float32.

In a session of ``bfloat16`` or ``float16`` the operands of every product are rounded to that dtype,
and so is its result; its sums are taken in float32. Parameters, slots, statistics, the number of
the step, losses, sums and all other operations are float32: what a step adds to a parameter is
often less than the parameter's last place in bfloat16, where a count also ends at 256 and 0.999 is
1 (Micikevicius et al. 2018, "Mixed precision training", section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.arrays import Array

NARROW = ("bfloat16", "float16")
# What is made in the narrow dtype: operands in, result out.
PRODUCTS = ("matmul", "tensordot")

Table = Mapping[str, Callable[..., Any]]
# Bytes of a number on the device, as it is kept.
WIDTHS: Mapping[str, int] = {
    "float64": 8,
    **dict.fromkeys(("float32", "tf32", "bfloat16", "float16"), 4),
}


def host_dtype(dtype: str) -> str:
    """The dtype in which a session of ``dtype`` keeps its floats: all of them but the operands of
    products, where those are narrower."""
    return "float64" if dtype == "float64" else "float32"


def narrow(dtype: str) -> str:
    """The dtype of products in a session of ``dtype``, where that is another; else empty."""
    return dtype if dtype in NARROW else ""


def with_products_in(table: Table, dtype: str) -> Table:
    """A table of primitives, and of fused operations, that takes and gives float32 and has its
    products in a narrow dtype; the same table where ``dtype`` is empty."""
    if not dtype:
        return table
    astype = table["astype"]

    def narrowed(product: Callable[..., Any]) -> Callable[..., Any]:
        def run(a: Any, b: Any, **attributes: Any) -> Any:
            made = product(astype(a, dtype=dtype), astype(b, dtype=dtype), **attributes)
            # Of what a framework makes, which is in the narrow dtype already, the inner is nothing.
            return astype(astype(made, dtype=dtype), dtype="float32")

        return run

    found = {**table, **{op: narrowed(table[op]) for op in PRODUCTS}}
    if "addmm" in table:
        matmul, add = found["matmul"], table["add"]
        found["addmm"] = lambda c, a, b: add(c, matmul(a, b))
    return found


def rounded_to(array: Array, dtype: str) -> Array:
    """A float array rounded to the nearest number of a narrow dtype, ties to even, in its own: for
    numpy, which has no bfloat16 and no fast products in float16."""
    if dtype == "float16":
        with np.errstate(over="ignore"):  # beyond 65504 is infinity
            return array.astype(np.float16).astype(array.dtype)
    bits = np.asarray(array, np.float32).view(np.uint32)
    # What is kept are the upper half's bits: half of their last place is added, less one unless
    # they are odd, and the lower half is cut off.
    upper = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) & np.uint32(0xFFFF0000)
    found = np.where(np.isnan(array), array, upper.view(np.float32))
    return np.asarray(found, array.dtype)
