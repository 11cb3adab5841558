"""Convolutions and pools that the jax backend claims; each is one operation of XLA.

If several entries are the maximum, XLA's max pool gives the whole gradient to the first, as
``max_pool_first`` does. ``max_pool`` splits the gradient, so it is not claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from harness.extend import ClaimableCall, Native, Packing, Tensors
from harness.extend.program import Dim

ACTIVATIONS = {"linear": lambda y: y, "relu": jax.nn.relu, "tanh": jnp.tanh}
# The axes of images, kernels and results. The kernel of a transposed convolution has its units
# before its channels.
AXES = {
    "conv1d": ("NHC", "HIO", "NHC"),
    "conv2d": ("NHWC", "HWIO", "NHWC"),
    "conv2d_without_bias": ("NHWC", "HWIO", "NHWC"),
    "depthwise_conv2d": ("NHWC", "HWIO", "NHWC"),
    "conv2d_transpose": ("NHWC", "HWOI", "NHWC"),
}


def _convolution(layer: ClaimableCall) -> Native | None:
    given, definition = layer.attributes, layer.definition
    if given["activation"] not in ACTIVATIONS:
        return None
    activation, axes = ACTIVATIONS[given["activation"]], AXES[definition]
    stride, dilation, pad = (int(given[n]) for n in ("stride", "dilation", "padding"))
    kernel, rank = layer.shapes["W"][0], len(axes[0]) - 2
    turned = definition == "conv2d_transpose"
    # The transposed convolution slides over the entries with zeros between them, and over every
    # position that a window reaches.
    ends = dilation * (kernel - 1) - pad if turned else pad
    steps = {"window_strides": (1 if turned else stride,) * rank}
    steps |= {"lhs_dilation": (stride if turned else 1,) * rank}
    steps |= {"rhs_dilation": (dilation,) * rank}
    whole = layer.shapes["W"]
    groups = whole[2] if definition == "depthwise_conv2d" else 1

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        weight = packed["W"]
        if turned:
            weight = jnp.flip(weight, (0, 1))
        if definition == "depthwise_conv2d":
            weight = weight.reshape((*whole[:2], 1, whole[2] * whole[3]))
        y = jax.lax.conv_general_dilated(
            values["x"],
            weight,
            padding=[(ends, ends)] * rank,
            dimension_numbers=axes,
            feature_group_count=groups,
            **steps,
        )
        return [activation(y + packed["b"] if "b" in packed else y)]

    return Native("jax.lax.conv_general_dilated", run, Packing.plain(tuple(layer.shapes)))


def _pool(layer: ClaimableCall) -> Native | None:
    window = Dim.of(layer.attributes["window"])
    if window.terms:
        return None
    stride, pad = int(layer.attributes["stride"]), int(layer.attributes["padding"])
    size, means = window.constant, layer.definition == "avg_pool"

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        pads = ((0, 0), (pad, pad), (pad, pad), (0, 0))
        windows, strides = (1, size, size, 1), (1, stride, stride, 1)
        start, reduction = (0.0, jax.lax.add) if means else (-jnp.inf, jax.lax.max)
        found = jax.lax.reduce_window(values["x"], start, reduction, windows, strides, pads)
        return [found / size**2 if means else found]

    return Native("jax.lax.reduce_window", run, Packing({}))


POOLS = dict.fromkeys(("avg_pool", "max_pool_first"), _pool)
IMAGES = {**dict.fromkeys(AXES, _convolution), **POOLS}
