"""Join zeros around an image with the padding of the layer after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.porting.graph import TracedCall
from harness.porting.rewriting import Calls
from harness.runtime.own_model.graph import short_pads

# The axes of the image of each layer that pads, apart from batch and channels.
RANKS = {"conv1d": 1, "conv2d": 2, "avg_pool": 2, "max_pool_first": 2}
# Functions without negative results: padding with zeros does not change a maximum.
AT_LEAST_ZERO = frozenset({"relu", "relu6", "sigmoid", "softplus", "hard_sigmoid_sixth"})


def join_padding(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Let a layer pad an image that is padded with zeros before it."""
    layer = str(call.attributes.get("layer"))
    if call.op != "layer" or layer not in RANKS:
        return [call]
    first = 1 if call.attributes["channels"] == -1 else 2
    axes = range(first, first + RANKS[layer])
    source, pads = done[call.inputs[0]], dict.fromkeys(axes, (0, 0))
    while (padded := _padded(source, done)) is not None and padded[1] in pads:
        source, axis, (before, after) = padded
        pads[axis] = (pads[axis][0] + before, pads[axis][1] + after)
    settings = call.attributes["settings"]
    own_pads = _pairs(settings.get("padding", 0), len(axes))
    window = settings.get("window") or [1] * len(axes)
    if source.name == call.inputs[0] or not _same_result(layer, source, own_pads, pads, window):
        return [call]
    sums = [
        [low + pads[axis][0], high + pads[axis][1]]
        for axis, (low, high) in zip(axes, own_pads, strict=True)
    ]
    new = {**settings, "padding": short_pads(sums)}
    attributes = {**call.attributes, "settings": new}
    return [replace(call, inputs=(source.name,), attributes=attributes)]


def _padded(
    call: TracedCall, done: Mapping[str, TracedCall]
) -> tuple[TracedCall, int, Sequence[int]] | None:
    """Return the value before zeros, their axis, and their numbers before and after the value, if a
    call is the result of :meth:`harness.runtime.own_model.graph.GraphBuilder.pad`."""
    windows = done[call.inputs[0]] if call.op == "reshape" else call
    a = windows.attributes
    if windows.op != "windows" or a["size"] != [1] or a["stride"] != [1] or a["lowest"]:
        return None
    (axis,) = a["axes"]
    rest = [*windows.shape[: axis + 1], *windows.shape[axis + 2 :]]
    same = list(call.shape) == rest
    return (done[windows.inputs[0]], axis, a["pads"][0]) if same else None


def _pairs(padding: Any, rank: int) -> list[Sequence[int]]:
    each = padding if isinstance(padding, list) else [padding] * rank
    return [pair if isinstance(pair, list) else [pair, pair] for pair in each]


def _same_result(
    layer: str,
    source: TracedCall,
    own_pads: Sequence[Sequence[int]],
    pads: Mapping[int, Sequence[int]],
    window: Any,
) -> bool:
    """Return whether a layer's own padding has the effect of zeros."""
    if layer.startswith("conv"):
        return True
    if any(n for pair in own_pads for n in pair):
        return False
    if layer == "avg_pool":
        return True
    # A window inside the padding has no maximum.
    lengths = window if isinstance(window, list) else [window] * len(own_pads)
    fits = all(max(p) < n for p, n in zip(pads.values(), lengths, strict=True))
    return fits and source.op in AT_LEAST_ZERO
