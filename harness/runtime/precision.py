"""Mixed precision: matrix products in a narrow dtype, all other operations in float32.

A session of ``bfloat16`` or ``float16`` rounds the operands and the result of every matrix product
to that dtype, but sums the terms in float32. Parameters, slots, statistics, the step number,
losses, sums and all other operations are in float32. The reason is that an update is often smaller
than the last digit of a parameter in bfloat16. Also, a bfloat16 counter cannot exceed 256, and
0.999 becomes 1 (Micikevicius et al. 2018, "Mixed precision training", section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.arrays import Array

NARROW = ("bfloat16", "float16")
# The operations that run in the narrow dtype.
PRODUCTS = ("matmul", "tensordot")

Table = Mapping[str, Callable[..., Any]]
# Bytes of a stored number on the device.
WIDTHS: Mapping[str, int] = {
    "float64": 8,
    **dict.fromkeys(("float32", "tf32", "bfloat16", "float16"), 4),
}


def host_dtype(dtype: str) -> str:
    """Return the dtype of the floats in a session of ``dtype``, e.g. float32 for bfloat16. It does
    not apply to the operands of matrix products, which have the dtype ``dtype``."""
    return "float64" if dtype == "float64" else "float32"


def narrow(dtype: str) -> str:
    """Return ``dtype`` if it is ``bfloat16`` or ``float16`` (a narrow dtype), else an empty
    text."""
    return dtype if dtype in NARROW else ""


def with_products_in(table: Table, dtype: str) -> Table:
    """Return a copy of ``table`` (primitives and fused operations) whose matrix products run in a
    narrow dtype (bfloat16 or float16), but take and return float32.

    If ``dtype`` is empty, return ``table`` unchanged.
    """
    if not dtype:
        return table
    astype = table["astype"]

    def narrowed(product: Callable[..., Any]) -> Callable[..., Any]:
        def run(a: Any, b: Any, **attributes: Any) -> Any:
            product_result = product(astype(a, dtype=dtype), astype(b, dtype=dtype), **attributes)
            # The inner cast does nothing if the framework's product already has the narrow dtype.
            return astype(astype(product_result, dtype=dtype), dtype="float32")

        return run

    narrowed_table = {**table, **{op: narrowed(table[op]) for op in PRODUCTS}}
    if "addmm" in table:
        matmul, add = narrowed_table["matmul"], table["add"]
        narrowed_table["addmm"] = lambda c, a, b: add(c, matmul(a, b))
    return narrowed_table


def rounded_to(array: Array, dtype: str) -> Array:
    """Return a float array whose numbers are rounded to a narrow dtype (bfloat16 or float16). The
    array keeps its own dtype.

    Ties are rounded to even. numpy needs this function, because it has no bfloat16 and its float16
    products are slow.
    """
    if dtype == "float16":
        with np.errstate(over="ignore"):  # beyond 65504 is infinity
            return array.astype(np.float16).astype(array.dtype)
    bits = np.asarray(array, np.float32).view(np.uint32)
    # Round to the upper 16 bits, ties to even: add 0x7FFF, or 0x8000 if the upper half is odd, and
    # clear the lower 16 bits.
    upper = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) & np.uint32(0xFFFF0000)
    rounded = np.where(np.isnan(array), array, upper.view(np.float32))
    return np.asarray(rounded, array.dtype)
