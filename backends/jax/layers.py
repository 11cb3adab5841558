"""What the jax backend claims: JAX's own attention, convolutions and pools, and optax's losses.

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
# Our loss -> optax's, and the roles that it takes in order.
LOSSES: Mapping[str, tuple[Callable[..., Any], tuple[str, str]]] = {
    "cross_entropy": (optax.softmax_cross_entropy, ("logits", "target")),
    "sparse_cross_entropy": (
        optax.softmax_cross_entropy_with_integer_labels,
        ("logits", "target"),
    ),
    "squared_error": (optax.squared_error, ("prediction", "target")),
}


def claim(layer: ClaimableCall, dtype: str, on_cpu: bool) -> Native | None:
    """What JAX or optax has for a layer or a loss, if it computes it in ``dtype``."""
    if layer.definition in LOSSES:
        return _loss(*LOSSES[layer.definition])
    native = None
    if layer.definition in IMAGES:
        native = IMAGES[layer.definition](layer)
    # The softmax of its attention is float32's in any dtype, and a CPU has no such products of
    # float16.
    lacking = ("float64", "float16") if on_cpu else ("float64",)
    if layer.definition in ATTENTION and dtype not in lacking:
        native = ATTENTION[layer.definition](layer)
    products = narrow(dtype)
    return _cast(native, products) if native and products and layer.shapes else native


def _cast(native: Native, dtype: str) -> Native:
    """A layer with parameters in a narrow dtype, by the casts that models in JAX have.

    But for its biases: their gradients are sums over a whole batch, which XLA takes in the dtype of
    the terms, and in a narrow one little is left of them in a large batch.
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
