"""The layers and losses that JAX has itself and that the backend ``jax`` uses: attention,
convolutions, pools, and optax's losses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from harness.extend import ClaimableCall, Join, Native, Packing, Part, Piece, Tensors, narrow

# JAX's fused attention; this module computes the projections before and after it.

Array = Any
# A function that returns the mask arguments of jax.nn.dot_product_attention from a layer's inputs.
MaskArguments = Callable[[Tensors], Mapping[str, Any]]
LABEL = "jax.nn.dot_product_attention"
_CAUSAL = {"is_causal": True}


def _mask(values: Tensors) -> Mapping[str, Any]:
    return {"mask": values["mask"][:, None, None, :]}


def _rotate(x: Array, half: int, base: float) -> Array:
    """Rotate x [batch, time, heads, 2 * half] as in a rotary position embedding: entry i of the
    first half and entry i of the second half are a pair."""
    # The angles are always in float32, even if products have a narrower dtype.
    places, pairs = (jnp.arange(n, dtype=jnp.float32) for n in (x.shape[1], half))
    turn = places[:, None, None] * base ** (-pairs / half)
    cos, sin = jnp.cos(turn).astype(x.dtype), jnp.sin(turn).astype(x.dtype)
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def _projections(
    layer: ClaimableCall,
) -> tuple[Callable[[Tensors, Tensors], list[Array]], dict[str, Piece]]:
    """Return a function that computes queries, keys and values [batch, time, heads * head], and the
    pieces of its weights. A single matmul computes all that depend on the same input."""
    two = "memory" in layer.node.attributes["roles"]
    sources = (("x", "q"), ("memory", "kv")) if two else (("x", "qkv"),)
    biased = [n for n in "qkv" if f"b_{n}" in layer.shapes]
    pieces: dict[str, Piece] = {f"b_{n}": Part(f"b_{n}") for n in biased}
    for _, letters in sources:
        pieces[f"W_{letters}"] = Join(tuple(Part(f"W_{n}") for n in letters), 1)

    def project(values: Tensors, packed: Tensors) -> list[Array]:
        by_letter: dict[str, Array] = {}
        for source, letters in sources:
            ends = itertools.accumulate(layer.shapes[f"W_{n}"][1] for n in letters[:-1])
            parts = jnp.split(values[source] @ packed[f"W_{letters}"], [*ends], -1)
            by_letter |= dict(zip(letters, parts, strict=True))
        # Convert to the dtype of products, because adding the bias may widen the dtype.
        return [
            (y + packed[b]).astype(y.dtype) if (b := f"b_{n}") in packed else y
            for n, y in by_letter.items()
        ]

    return project, pieces


def _attention(layer: ClaimableCall) -> Native | None:
    """Return JAX's attention as a native layer; None with noise, which this attention cannot take,
    and if the result is 0 for an empty mask."""
    attributes = layer.attributes
    if attributes["keep"] != 1 or attributes.get("zero_if_empty"):
        return None
    rotary = (
        (attributes["half"], attributes["base"])
        if layer.definition == "grouped_attention"
        else None
    )
    head = 2 * rotary[0] if rotary else attributes["head"]
    project, pieces = _projections(layer)
    pieces |= {name: Part(name) for name in ("W_o", "b_o") if name in layer.shapes}

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        # [batch, time, heads * head] -> [batch, time, heads, head]
        q, k, v = (y.reshape(*y.shape[:2], -1, head) for y in project(values, packed))
        if rotary:
            q, k = _rotate(q, *rotary), _rotate(k, *rotary)
        y = jax.nn.dot_product_attention(q, k, v, **MASKS[layer.definition](values))
        y = y.reshape(*y.shape[:2], -1) @ packed["W_o"]
        return [y + packed["b_o"] if "b_o" in packed else y]

    return Native(LABEL, run, Packing(pieces))


MASKS: Mapping[str, MaskArguments] = {
    **dict.fromkeys(("causal_attention", "grouped_attention"), lambda _: _CAUSAL),
    **dict.fromkeys(("self_attention", "cross_attention"), lambda _: {}),
    "masked_attention": _mask,
}
ATTENTION = dict.fromkeys(MASKS, _attention)


# Convolutions and pools, each of which is one operation of XLA. If several entries are the maximum,
# XLA's max pool gives the whole gradient to the first, as ``max_pool_first`` does. ``max_pool``
# splits the gradient, so it is not claimed.

ACTIVATIONS = {"linear": lambda y: y, "relu": jax.nn.relu, "tanh": jnp.tanh}
# The axes of images, kernels and results. The kernel of a transposed convolution has its units
# before its channels.
AXES = {
    "conv1d": ("NHC", "HIO", "NHC"),
    "conv2d": ("NHWC", "HWIO", "NHWC"),
    "conv2d_transpose": ("NHWC", "HWOI", "NHWC"),
}


class Framing(NamedTuple):
    """The settings of a convolution's windows: stride, dilation and padding of each axis, and the
    number of channel groups. ``padding`` has the format of ``jax.lax``."""

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str | list[tuple[int, int]]
    groups: int


def framing(layer: ClaimableCall) -> Framing:
    """Return the settings of a convolution's windows, e.g. stride and padding, from the attributes
    of the layer."""
    attributes, kernel = layer.attributes, layer.shapes["W"][:-2]
    if layer.definition == "conv2d_transpose":
        # A transposed convolution inserts zeros between the inputs, and pads them so that each
        # window overlaps at least one input.
        stride, dilation, pad = (int(attributes[n]) for n in ("stride", "dilation", "padding"))
        ends = [(dilation * (size - 1) - pad,) * 2 for size in kernel]
        return Framing((stride,) * len(kernel), (dilation,) * len(kernel), ends, 1)
    pads = "SAME" if attributes["padding"] == "same" else list(attributes["padding"])
    return Framing(attributes["stride"], attributes["dilation"], pads, int(attributes["groups"]))


def _convolution(layer: ClaimableCall) -> Native | None:
    if layer.attributes["activation"] not in ACTIVATIONS:
        return None
    activation, axes = ACTIVATIONS[layer.attributes["activation"]], AXES[layer.definition]
    stride, dilation, padding, groups = framing(layer)
    turned, ones = layer.definition == "conv2d_transpose", (1,) * len(stride)

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        y = jax.lax.conv_general_dilated(
            values["x"],
            jnp.flip(packed["W"], (0, 1)) if turned else packed["W"],
            window_strides=ones if turned else stride,
            padding=padding,
            lhs_dilation=stride if turned else ones,
            rhs_dilation=dilation,
            dimension_numbers=axes,
            feature_group_count=groups,
        )
        return [activation(y + packed["b"] if "b" in packed else y)]

    return Native("jax.lax.conv_general_dilated", run, Packing.plain(tuple(layer.shapes)))


def _pool(layer: ClaimableCall) -> Native:
    attributes, means = layer.attributes, layer.definition == "avg_pool"
    windows, strides = (1, *attributes["window"], 1), (1, *attributes["stride"], 1)
    same = attributes["padding"] == "same"
    padding = "SAME" if same else ((0, 0), *attributes["padding"], (0, 0))

    def reduce(x: Array) -> Array:
        start, reduction = (0.0, jax.lax.add) if means else (-jnp.inf, jax.lax.max)
        return jax.lax.reduce_window(x, start, reduction, windows, strides, padding)

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        x = values["x"]
        if not means:
            return [reduce(x)]
        count = math.prod(windows) if attributes["count_padding"] else reduce(jnp.ones_like(x))
        return [reduce(x) / count]

    return Native("jax.lax.reduce_window", run, Packing({}))


POOLS = dict.fromkeys(("avg_pool", "max_pool_first"), _pool)
IMAGES = {**dict.fromkeys(AXES, _convolution), **POOLS}


# The choice between layers and losses, and optax's losses.

BIASES = ("b", "b_q", "b_k", "b_v", "b_o")
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
    """Return the layer or loss of JAX or optax that computes a call in ``dtype``; return None if
    there is none. ``on_cpu`` is False on a GPU."""
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
    """Wrap a layer to run in a narrow dtype (bfloat16 or float16): its inputs and parameters,
    except biases, are cast to this dtype.

    Biases stay in float32 because XLA sums the gradient of a bias over the batch in the bias's
    dtype. In a narrow dtype, the sum over a large batch would lose most of its digits.
    """

    def cast(tensors: Tensors) -> Tensors:
        floats = {n for n, t in tensors.items() if jnp.issubdtype(t.dtype, jnp.floating)}
        floats.difference_update(BIASES)
        return {n: t.astype(dtype) if n in floats else t for n, t in tensors.items()}

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        return [result.astype(jnp.float32) for result in native.run(cast(values), cast(packed))]

    return replace(native, label=f"{native.label} ({dtype})", run=run)


def _loss(loss: Callable[..., Any], roles: Sequence[str]) -> Native:
    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        return (loss(*(values[role] for role in roles)),)

    return Native(f"optax.{loss.__name__}", run, Packing({}))
