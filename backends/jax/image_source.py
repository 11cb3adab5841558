"""Source code of the convolutions and pools that call a function of ``jax.lax``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.extend import ClaimableCall

from .layers import AXES, IMAGES, POOLS, framing

ACTIVATIONS = {"linear": "{}", "relu": "jax.nn.relu({})", "tanh": "jnp.tanh({})"}


@dataclass(frozen=True)
class LayerSource:
    """The body of a function that computes a layer from ``params`` and ``x``.

    ``arguments`` maps each further argument of the function to its default and to its value for
    this layer, as source code.
    """

    lines: Sequence[str]
    arguments: Mapping[str, tuple[str, str]]


def layer_source(layer: ClaimableCall) -> LayerSource | None:
    """Return the source code of a convolution or pool; None for other layers, and for a convolution
    with an activation that JAX lacks."""
    if layer.definition not in IMAGES:
        return None
    if layer.definition in POOLS:
        return _pool(layer)
    activation = ACTIVATIONS.get(layer.attributes["activation"])
    return None if activation is None else _convolution(layer, activation)


def _convolution(layer: ClaimableCall, activation: str) -> LayerSource:
    settings, axes = framing(layer), AXES[layer.definition]
    ones = (1,) * len(settings.stride)
    zeros = ((0, 0),) * len(ones)
    pads = settings.padding if isinstance(settings.padding, str) else tuple(settings.padding)
    options: dict[str, tuple[Any, Any]] = {
        "stride": (ones, settings.stride),
        "padding": (zeros, pads),
        "dilation": (ones, settings.dilation),
    }
    if layer.definition == "conv2d_transpose":
        # A transposed convolution is a convolution of an image with zeros between its entries.
        call = [
            'jnp.flip(params["W"], (0, 1)),',
            f"window_strides={ones},",
            "padding=padding,",
            "lhs_dilation=stride,",
        ]
    else:
        options["groups"] = (1, settings.groups)
        call = ['params["W"],', "window_strides=stride,", "padding=padding,"]
        call += ["feature_group_count=groups,"]
    texts = ", ".join(f'"{letters}"' for letters in axes)
    biased = 'y + params["b"] if "b" in params else y'
    lines = [
        "y = jax.lax.conv_general_dilated(",
        *(f"    {line}" for line in ("x,", *call, "rhs_dilation=dilation,")),
        f"    dimension_numbers=({texts}),",
        ")",
        f"return {activation.format(biased)}",
    ]
    return LayerSource(lines, {n: (_text(a), _text(b)) for n, (a, b) in options.items()})


def _pool(layer: ClaimableCall) -> LayerSource:
    attributes, means = layer.attributes, layer.definition == "avg_pool"
    same = attributes["padding"] == "same"
    options: dict[str, tuple[Any, Any]] = {
        name: ((2, 2), attributes[name]) for name in ("window", "stride")
    }
    lines = ["window, stride = (1, *window, 1), (1, *stride, 1)"]
    if not same:
        options["padding"] = (((0, 0),) * len(attributes["window"]), attributes["padding"])
        lines.append("padding = ((0, 0), *padding, (0, 0))")
    start, function = ("0.0", "jax.lax.add") if means else ('-float("inf")', "jax.lax.max")
    pads = '"SAME"' if same else "padding"
    options_text = f"{start}, {function}, window, stride, {pads}"
    reduced = f"jax.lax.reduce_window(x, {options_text})"
    if not means:
        lines.append(f"return {reduced}")
    elif attributes["count_padding"]:
        lines += [f"total = {reduced}", "return total / math.prod(window)"]
    else:
        count = f"jax.lax.reduce_window(jnp.ones_like(x), {options_text})"
        lines += [f"total = {reduced}", f"return total / {count}"]
    return LayerSource(lines, {n: (_text(a), _text(b)) for n, (a, b) in options.items()})


def _text(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
