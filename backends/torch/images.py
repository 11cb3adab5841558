"""Convolutions and pools that the torch backend runs with torch's own functions.

torch puts channels after the batch. A transposed view of a channels-last image has torch's
``channels_last`` memory format, which torch's kernels accept without a copy. At ties, torch's max
pool gives the whole gradient to the first entry, as ``max_pool_first`` does. ``max_pool`` splits
the gradient, so it runs as equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from harness.extend import ClaimableCall, Native, Packing, Part, Piece, Tensors
from harness.extend.program import Dim

Tensor = Any
POOLS = {"avg_pool": "avg_pool2d", "max_pool_first": "max_pool2d"}
ACTIVATIONS = ("linear", "relu", "tanh", "sigmoid")


# Name of a definition -> torch's function, and for each axis of torch's weight the same axis of the
# definition's kernel.
CONVOLUTIONS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "conv1d": ("conv1d", (2, 1, 0)),
    "conv2d": ("conv2d", (3, 2, 0, 1)),
    "conv2d_without_bias": ("conv2d", (3, 2, 0, 1)),
    "depthwise_conv2d": ("conv2d", (2, 3, 0, 1)),
    "conv2d_transpose": ("conv_transpose2d", (3, 2, 0, 1)),
}


def convolution(layer: ClaimableCall) -> Native | None:
    """Return torch's convolution for a layer; None if its activation is not in ``ACTIVATIONS``."""
    given, definition = layer.attributes, layer.definition
    activation = given["activation"]
    if activation not in ACTIVATIONS:
        return None
    name, axes = CONVOLUTIONS[definition]
    function = getattr(torch.nn.functional, name)
    options = {option: int(given[option]) for option in ("stride", "dilation", "padding")}
    weight = Part("W", axes=axes)
    if definition == "depthwise_conv2d":
        rows, columns, options["groups"], multiplier = layer.shapes["W"]
        weight = replace(weight, shape=(options["groups"] * multiplier, 1, rows, columns))

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        x = values["x"].movedim(-1, 1)
        y = function(x, packed["weight"], packed.get("bias"), **options).movedim(1, -1)
        return [y if activation == "linear" else getattr(torch, activation)(y)]

    label = f"torch.nn.functional.{name}"
    if activation != "linear":
        label += f", torch.{activation}"
    pieces: dict[str, Piece] = {"weight": weight}
    if "b" in layer.shapes:
        pieces["bias"] = Part("b")
    return Native(label, run, Packing(pieces))


def pool(layer: ClaimableCall) -> Native | None:
    """Return torch's mean or max pool for a layer; None if the padding exceeds half a window, which
    torch rejects."""
    given = layer.attributes
    window = Dim.of(given["window"])
    stride, padding = int(given["stride"]), int(given["padding"])
    if window.terms or 2 * padding > window.constant:
        return None
    size, name = window.constant, POOLS[layer.definition]
    function = getattr(torch.nn.functional, name)

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        x = values["x"].movedim(-1, 1)
        return [function(x, size, stride, padding).movedim(1, -1)]

    return Native(f"torch.nn.functional.{name}", run, Packing({}))
