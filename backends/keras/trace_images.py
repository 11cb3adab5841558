"""Rules that translate Keras layers of images: convolutions, cropping and resizing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.extend.models import Operand, short_pads

from .trace_rules import RULES, About, Result, activate, input_shape, pads_of

# The settings of windows that Keras' layers have as one number or as a number for each axis.
LISTS = ("stride", "dilation")


def _windows(layer: Any, kernel: Sequence[int], pads: Any) -> dict[str, Any]:
    rank = len(kernel)
    lists = {"stride": layer.strides, "dilation": layer.dilation_rate}
    each = {n: [v] * rank if isinstance(v, int) else list(v) for n, v in lists.items()}
    return {"size": list(kernel), "pads": pads, **each}


def _with_bias(t: Any, layer: Any, value: Operand, about: About) -> Result:
    if layer.use_bias:
        value = t.builder.node("+", [value, t.weight(layer.bias)], about)
    return activate(t, layer.activation, value, about)


@RULES.of("Conv3D")
def _convolution(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, size = node.operation, [int(n) for n in node.operation.kernel.shape[:-2]]
    pads = pads_of(layer, input_shape(t, node)[1:-1], size)
    if layer.data_format != "channels_last" or pads is None:
        return None
    windows, kernel = _windows(layer, size, pads), t.weight(layer.kernel)
    value = t.builder.convolve(inputs[0], kernel, windows, layer.groups, about)
    return _with_bias(t, layer, value, about)


@RULES.of("SeparableConv1D", "SeparableConv2D", "DepthwiseConv1D")
def _separable(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    """Add a convolution for each channel; in a separable layer, a sum over channels follows."""
    layer, shape = node.operation, input_shape(t, node)
    first = getattr(layer, "depthwise_kernel", None)
    depthwise = layer.kernel if first is None else first
    *size, channels, times = (int(n) for n in depthwise.shape)
    pads = pads_of(layer, shape[1:-1], size)
    if layer.data_format != "channels_last" or pads is None:
        return None
    own = {**about, "shape": (*about["shape"][:-1], channels * times)}
    windows, biased = _windows(layer, size, pads), bool(layer.use_bias)
    settings = {"kernel": size, "padding": short_pads(pads), **{n: windows[n] for n in LISTS}}
    settings |= {"units": channels * times, "groups": channels}
    bias = {"b": layer.bias} if biased else {}
    name = f"conv{len(size)}d"
    if first is None:
        settings["bias"] = biased
        value = t.layer(name, inputs, settings, {"W": depthwise, **bias}, own)
    else:
        settings["bias"] = False
        value = t.layer(name, inputs, settings, {"W": depthwise}, own)
        settings = {"units": layer.filters, "kernel": [1] * len(size), "bias": biased}
        value = t.layer(name, [value], settings, {"W": layer.pointwise_kernel, **bias}, about)
    return activate(t, layer.activation, value, about)


@RULES.of("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def _transposed(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    *size, units, channels = (int(n) for n in layer.kernel.shape)
    rank = len(size)
    windows = _windows(layer, size, [[0, 0]] * rank)
    if layer.data_format != "channels_last" or (layer.output_padding is not None):
        return None
    # Keras' padding "same" cuts the result to the input's length times the stride.
    columns = zip(size, windows["stride"], windows["dilation"], strict=True)
    rests = [(n - 1) * step + 1 - stride for n, stride, step in columns]
    if layer.padding == "same":
        windows["pads"] = [[max(n, 0) // 2, max(n, 0) - max(n, 0) // 2] for n in rests]
    ends = {before for before, _ in windows["pads"]}
    square = all(len({*values}) == 1 for values in (size, *(windows[n] for n in LISTS), ends))
    if rank == 2 and square and layer.use_bias and min(rests) >= 0:
        return _square(t, layer, inputs, windows, about)
    axes = [rank + 1, *range(rank + 1)]
    shape = (channels, *size, units)
    kernel = t.builder.node("permute", [t.weight(layer.kernel)], about, shape, axes=axes)
    value = t.builder.convolve_transposed(inputs[0], kernel, windows, 1, about)
    return _with_bias(t, layer, value, about)


def _square(
    t: Any, layer: Any, inputs: Sequence[Operand], windows: Mapping[str, Any], about: About
) -> Result:
    """Add the shipped transposed convolution, whose padding is the same on all sides. Padding
    "same" of Keras also cuts the last row and column if it has one more at the end."""
    (before, after), *_ = windows["pads"]
    batch, tall, wide, units = about["shape"]
    shape = (batch, tall + after - before, wide + after - before, units)
    settings = {"units": units, "padding": before}
    settings |= {n: windows[m][0] for n, m in (("kernel", "size"), *((n, n) for n in LISTS))}
    weights = {"W": layer.kernel, "b": layer.bias}
    value = t.layer("conv2d_transpose", inputs, settings, weights, {**about, "shape": shape})
    for axis, length in ((1, tall), (2, wide)):
        value = t.builder.cut(value, axis, (0, length, 1), about)
    return activate(t, layer.activation, value, about)


@RULES.of("Cropping1D", "Cropping2D", "Cropping3D", "CenterCrop")
def _crop(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, value = node.operation, inputs[0]
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return None
    shape, result = input_shape(t, node), about["shape"]
    cropping = getattr(layer, "cropping", None)
    if cropping is None:
        starts = [(n - m) // 2 for n, m in zip(shape[1:-1], result[1:-1], strict=True)]
    else:
        starts = [pair[0] for pair in ([cropping] if len(shape) == 3 else cropping)]
    if any(n < m for n, m in zip(shape, result, strict=True)):
        return None  # CenterCrop resizes small images
    for axis, start in enumerate(starts, 1):
        value = t.builder.cut(value, axis, (start, start + result[axis], 1), about)
    return value


@RULES.of("Resizing")
def _resize(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    cuts = layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio or layer.antialias
    if layer.data_format != "channels_last" or cuts or layer.interpolation != "bilinear":
        return None
    tall, wide = about["shape"][1:3]
    shrinks = input_shape(t, node)[1] > tall or input_shape(t, node)[2] > wide
    return (
        None if shrinks else t.builder.node("resize_bilinear", inputs, about, tall=tall, wide=wide)
    )


@RULES.of("Normalization")
def _standardize(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, numbers = node.operation, t.keras.ops.convert_to_numpy
    smallest = t.keras.config.epsilon()
    arrays = [numbers(layer.mean), (numbers(layer.variance) ** 0.5).clip(smallest)]
    mean, deviation = (
        t.builder.add("constant", [], {}, **{**about, "shape": a.shape}, values=a) for a in arrays
    )
    if layer.invert:
        return t.builder.node(
            "+", [t.builder.node("*", [inputs[0], deviation], about), mean], about
        )
    return t.builder.node("/", [t.builder.node("-", [inputs[0], mean], about), deviation], about)


@RULES.of("RepeatVector")
def _repeat(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    batch, _, width = about["shape"]
    row = t.builder.node("reshape", inputs, about, (batch, 1, width))
    return t.builder.node("broadcast", [row], about)
