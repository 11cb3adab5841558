"""Layers and losses that the jax backend claims: attention, convolutions, pools, optax's losses.

JAX has no other layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import optax

from harness.extend import ClaimableCall, Native, Packing, Tensors, narrow

from .attention import ATTENTION
from .images import IMAGES

BIASES = ("b", "b_qkv", "b_o")
# The spec's loss -> optax's loss, and the roles of its arguments, in order.
LOSSES: Mapping[str, tuple[Callable[..., Any], tuple[str, str]]] = {
    "cross_entropy": (optax.softmax_cross_entropy, ("logits", "target")),
    "sparse_cross_entropy": (
        optax.softmax_cross_entropy_with_integer_labels,
        ("logits", "target"),
    ),
    "squared_error": (optax.squared_error, ("prediction", "target")),
}


def claim(layer: ClaimableCall, dtype: str, on_cpu: bool) -> Native | None:
    """Return the version of a layer or loss in JAX or optax, if it supports ``dtype``."""
    if layer.definition in LOSSES:
        return _loss(*LOSSES[layer.definition])
    native = None
    if layer.definition in IMAGES:
        native = IMAGES[layer.definition](layer)
    # JAX's attention always computes the softmax in float32, and cannot run in float16 on a CPU.
    lacking = ("float64", "float16") if on_cpu else ("float64",)
    if layer.definition in ATTENTION and dtype not in lacking:
        native = ATTENTION[layer.definition](layer)
    products = narrow(dtype)
    return _cast(native, products) if native and products and layer.shapes else native


def _cast(native: Native, dtype: str) -> Native:
    """Cast a layer's tensors to a narrow dtype, as JAX models do, except biases.

    XLA sums the gradient of a bias over the whole batch in the dtype of the summands. In a narrow
    dtype a large batch would lose most of that sum.
    """

    def cast(tensors: Tensors) -> Tensors:
        floats = {n for n, t in tensors.items() if jnp.issubdtype(t.dtype, jnp.floating)}
        floats.difference_update(BIASES)
        return {n: t.astype(dtype) if n in floats else t for n, t in tensors.items()}

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        return [made.astype(jnp.float32) for made in native.run(cast(values), cast(packed))]

    return replace(native, label=f"{native.label} ({dtype})", run=run)


def _loss(loss: Callable[..., Any], roles: Sequence[str]) -> Native:
    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        return (loss(*(values[role] for role in roles)),)

    return Native(f"optax.{loss.__name__}", run, Packing({}))
