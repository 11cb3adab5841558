"""Mixed precision: products in a narrow dtype, everything else in float32.

A session of ``bfloat16`` or ``float16`` rounds the operands and the result of every product to that
dtype; the sums of a product are in float32. Parameters, slots, statistics, the step number, losses,
sums and all other operations are float32. An update is often smaller than a parameter's last place
in bfloat16. In bfloat16 a count also ends at 256, and 0.999 is 1 (Micikevicius et al. 2018, "Mixed
precision training", section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.arrays import Array

NARROW = ("bfloat16", "float16")
# Operations whose operands and results have the narrow dtype.
PRODUCTS = ("matmul", "tensordot")

Table = Mapping[str, Callable[..., Any]]
# Bytes of a stored number on the device.
WIDTHS: Mapping[str, int] = {
    "float64": 8,
    **dict.fromkeys(("float32", "tf32", "bfloat16", "float16"), 4),
}


def host_dtype(dtype: str) -> str:
    """Return the dtype in which a session of ``dtype`` keeps floats, except the operands of
    products."""
    return "float64" if dtype == "float64" else "float32"


def narrow(dtype: str) -> str:
    """Return ``dtype`` if products are narrower than the session's other floats, else an empty
    string."""
    return dtype if dtype in NARROW else ""


def with_products_in(table: Table, dtype: str) -> Table:
    """Return a table that takes and gives float32 and computes its products in a narrow dtype.

    ``table`` holds primitives and fused operations. If ``dtype`` is empty, return the same table.
    """
    if not dtype:
        return table
    astype = table["astype"]

    def narrowed(product: Callable[..., Any]) -> Callable[..., Any]:
        def run(a: Any, b: Any, **attributes: Any) -> Any:
            made = product(astype(a, dtype=dtype), astype(b, dtype=dtype), **attributes)
            # A framework's product already has the narrow dtype: its inner cast does nothing.
            return astype(astype(made, dtype=dtype), dtype="float32")

        return run

    found = {**table, **{op: narrowed(table[op]) for op in PRODUCTS}}
    if "addmm" in table:
        matmul, add = found["matmul"], table["add"]
        found["addmm"] = lambda c, a, b: add(c, matmul(a, b))
    return found


def rounded_to(array: Array, dtype: str) -> Array:
    """Return a float array, in its own dtype, rounded to the nearest number of a narrow dtype. Ties
    go to even. numpy needs this: it has no bfloat16 and no fast products in float16."""
    if dtype == "float16":
        with np.errstate(over="ignore"):  # beyond 65504 is infinity
            return array.astype(np.float16).astype(array.dtype)
    bits = np.asarray(array, np.float32).view(np.uint32)
    # Keep the upper 16 bits. Add half of their last place, less one unless they are odd, and cut
    # off the lower half.
    upper = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) & np.uint32(0xFFFF0000)
    found = np.where(np.isnan(array), array, upper.view(np.float32))
    return np.asarray(found, array.dtype)
