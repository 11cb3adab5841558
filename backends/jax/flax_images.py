"""Convolutions and pools that Flax has as modules or functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx

from harness.extend import ClaimableCall, Native, Packing, Tensors
from harness.extend.program import Dim

from .flax_modules import Claim, Module, Own, kernel_and_bias, known, module, then
from .images import AXES, POOLS


def _convolution(layer: ClaimableCall, dtype: str) -> Native:
    given, whole = layer.attributes, layer.shapes["W"]
    stride, dilation, pad = (int(given[n]) for n in ("stride", "dilation", "padding"))
    kernel, rank = whole[0], len(whole) - 2
    pieces = kernel_and_bias(layer)
    further: dict[str, Any] = {"kernel_size": whole[:rank], "strides": (stride,) * rank}
    further |= {"kernel_dilation": (dilation,) * rank, "use_bias": "bias" in pieces}

    def made(own: Own) -> Module:
        if layer.definition == "conv2d_transpose":
            # The transposed convolution slides over the entries with zeros between them, and over
            # every position that a window reaches.
            ends = dilation * (kernel - 1) - pad
            pads = {"padding": [(ends, ends)] * rank, "transpose_kernel": True}
            return nnx.ConvTranspose(whole[-1], whole[-2], **own, **further, **pads)
        groups, channels, units = 1, whole[-2], whole[-1]
        if layer.definition == "depthwise_conv2d":
            groups, units = channels, channels * units
        pads = {"padding": [(pad, pad)] * rank, "feature_group_count": groups}
        return nnx.Conv(channels, units, **own, **further, **pads)

    return module(dtype, made, pieces, then(given["activation"]))


def _pool(layer: ClaimableCall, dtype: str) -> Native | None:
    window = Dim.of(layer.attributes["window"])
    if window.terms:
        return None
    stride, pad = int(layer.attributes["stride"]), int(layer.attributes["padding"])
    pool = nnx.avg_pool if layer.definition == "avg_pool" else nnx.max_pool

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        shape, strides, pads = (window.constant,) * 2, (stride,) * 2, ((pad, pad),) * 2
        return [pool(values["x"], window_shape=shape, strides=strides, padding=pads)]

    return Native(f"flax.nnx.{pool.__name__}", run, Packing({}))


IMAGES: Mapping[str, Claim] = {
    **dict.fromkeys(AXES, known(_convolution)),
    **dict.fromkeys(POOLS, _pool),
}
