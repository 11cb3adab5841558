"""What a session differentiates where it is asked for gradients along cotangents."""

from __future__ import annotations

from typing import Any

from harness.runtime.interpreter import Table, perform
from harness.runtime.native import Tensors


def inner_product(table: Table, results: Tensors, constants: Tensors) -> Any:
    """The sum of all results times their cotangents, which are among the constants."""
    total = None
    for name, tensor in constants.items():
        if name.startswith("cotangent."):
            factors = [results[name.removeprefix("cotangent.")], tensor]
            product = perform(table, "multiply", factors)
            axes = tuple(range(len(product.shape)))
            term = perform(table, "sum", [product], {"axis": axes, "keepdims": False})
            total = term if total is None else perform(table, "add", [total, term])
    return total
