"""Source code of the convolutions and pools that Keras has as operations, but not as layers with
the same settings: padding that differs before and after an axis, dilation, and groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.extend import ClaimableCall

FUNCTIONS = {"conv1d": "conv", "conv2d": "conv", "avg_pool": "average_pool"}
FUNCTIONS |= {"max_pool_first": "max_pool"}
ACTIVATIONS = {"linear": "{}", **{n: f"ops.{n}({{}})" for n in ("relu", "tanh", "sigmoid")}}


def image_lines(layer: ClaimableCall, weights: Mapping[str, str]) -> list[str] | None:
    """Return the body of a method that computes a convolution or pool of ``x``; None for another
    layer. ``weights`` has the attribute of each weight."""
    attributes, function = layer.attributes, FUNCTIONS.get(layer.definition)
    activation = ACTIVATIONS.get(attributes.get("activation", "linear"))
    if function is None or activation is None or isinstance(attributes["padding"], str):
        return None
    fill = 'float("-inf")' if function == "max_pool" else "0.0"
    pads, stride = attributes["padding"], attributes["stride"]
    lines = _pad("x", pads, fill)
    if function == "conv":
        options = {"strides": stride, "dilation_rate": attributes["dilation"]}
        texts = [f"{name}={value!r}" for name, value in options.items() if {*value} != {1}]
        call = f"ops.conv({', '.join(['x', 'self.' + weights['W'], *texts])})"
        call += f" + self.{weights['b']}" if "b" in weights else ""
        return [*lines, f"return {activation.format(call)}"]
    call = f"ops.{function}({{}}, {attributes['window']!r}, strides={stride!r})"
    text = call.format("x")
    if lines and not attributes.get("count_padding", True):
        # A mean without padding is divided by the share of its window that is inside.
        lines = ["inside = ops.ones_like(x)", *lines, *_pad("inside", pads, fill)]
        text += f" / {call.format('inside')}"
    return [*lines, f"return {text}"]


def _pad(name: str, pads: Sequence[Sequence[int]], fill: str) -> list[str]:
    """Return the line that pads a variable; no line without padding."""
    pairs = ", ".join(f"({before}, {after})" for before, after in ((0, 0), *pads, (0, 0)))
    line = f"{name} = ops.pad({name}, [{pairs}], constant_values={fill})"
    return [line] if any(map(any, pads)) else []
