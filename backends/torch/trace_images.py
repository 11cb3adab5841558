"""Rules that translate torch's operators on images: padding and interpolation."""

from __future__ import annotations

from typing import Any

import torch

from harness.extend.models import Operand

from .trace_rules import RULES, OperatorArguments, TorchTranslation, length_of, name_of, unsupported


@RULES.of("constant_pad_nd")
def _pad(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    pads, value, rank = list(a["pad"]), a["self"], len(about["shape"])
    # The pairs begin with the last axis. A negative number removes entries.
    pairs = {rank - 1 - n: pads[2 * n : 2 * n + 2] for n in range(len(pads) // 2)}
    for axis, (before, after) in pairs.items():
        bounds = (max(-before, 0), length_of(node, axis) - max(-after, 0), 1)
        value = t.builder.cut(value, axis, bounds, about)
    positive = {axis: [max(n, 0) for n in pair] for axis, pair in sorted(pairs.items())}
    places = {n: pair for n, pair in positive.items() if any(pair)}
    return t.builder.pad(value, places, about, a["value"] or 0)


@RULES.of("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d")
def _resize(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    name = name_of(node)
    value, (batch, channels, tall, wide) = a["input" if "input" in a else "self"], about["shape"]
    factors = a.get("scale_factors") or [a.get("scales_h"), a.get("scales_w")]
    for axis, factor, length in ((2, factors[0], tall), (3, factors[1], wide)):
        if factor is not None and length_of(node, axis) * factor != length:
            return unsupported(t, node, about, f"the factor {factor} is not that of the lengths")
    settings: dict[str, Any] = {"tall": tall, "wide": wide}
    if name == "upsample_bilinear2d" and a["align_corners"]:
        settings["align_corners"] = True
    if name == "_upsample_nearest_exact2d":
        settings["centered"] = True
    function = "resize_bilinear" if "bilinear" in name else "resize_nearest"
    old = t.builder.shape_of(value)
    last = t.builder.node("permute", [value], about, (batch, *old[2:], channels), axes=[0, 2, 3, 1])
    image = t.builder.node(function, [last], about, (batch, tall, wide, channels), **settings)
    return t.builder.add("permute", [image], {"axes": [0, 3, 1, 2]}, **about)
