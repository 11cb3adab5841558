"""Rules that translate Keras layers of images: convolutions, cropping and resizing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.extend.models import Operand

from .trace_rules import RULES, About, Result, activate, input_shape, pads_of


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
    kernel = t.weight(depthwise)
    kernel = t.builder.node("reshape", [kernel], about, (*size, 1, channels * times))
    windows = _windows(layer, size, pads)
    value = t.builder.convolve(inputs[0], kernel, windows, channels, own)
    if first is not None:
        table = t.weight(layer.pointwise_kernel)
        table = t.builder.node("reshape", [table], about, (channels * times, layer.filters))
        value = t.builder.node("@", [value, table], about)
    return _with_bias(t, layer, value, about)


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
    rests = [max((n - 1) * step + 1 - stride, 0) for n, stride, step in columns]
    if layer.padding == "same":
        windows["pads"] = [[n // 2, n - n // 2] for n in rests]
    axes = [rank + 1, *range(rank + 1)]
    shape = (channels, *size, units)
    kernel = t.builder.node("permute", [t.weight(layer.kernel)], about, shape, axes=axes)
    value = t.builder.convolve_transposed(inputs[0], kernel, windows, 1, about)
    return _with_bias(t, layer, value, about)


@RULES.of("Cropping1D", "Cropping2D", "Cropping3D", "CenterCrop")
def _crop(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, value = node.operation, inputs[0]
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return None
    shape, result = input_shape(t, node), about["shape"]
    given = getattr(layer, "cropping", None)
    if given is None:
        starts = [(n - m) // 2 for n, m in zip(shape[1:-1], result[1:-1], strict=True)]
    else:
        starts = [pair[0] for pair in ([given] if len(shape) == 3 else given)]
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
