"""The rules that translate Keras layers into the neutral graph, by class name.

A rule gets the translation, the node of Keras' graph, the operands of its inputs, and shape, kind,
modules and place of the result. It returns the operand of the result, or None for a setting that
has no translation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.extend.models import Operand, Rules, short_pads

About = Mapping[str, Any]
# A list for the results of an operation with several.
Result = Operand | list[Operand] | None
# The translation is a `trace.KerasTranslation`, which imports this module.
Rule = Callable[[Any, Any, Sequence[Operand], About], Result]
RULES: Rules[Rule] = Rules()
ACTIVATIONS = {
    **{n: n for n in ("relu", "sigmoid", "tanh", "softplus", "exp", "log", "silu", "gelu")},
    **{n: n for n in ("relu6", "softsign", "mish", "hard_swish")},
    "swish": "silu",
    "exponential": "exp",
    "hard_sigmoid": "hard_sigmoid_sixth",
    "hard_silu": "hard_swish",
}
MERGES = {
    "Add": "+",
    "Subtract": "-",
    "Multiply": "*",
    "Maximum": "maximum",
    "Minimum": "minimum",
    "Average": "+",
}
# Selu's constants.
ALPHA, GAMMA = 1.6732632423543772, 1.0507009873554805


def activate(t: Any, function: Any, x: Operand, about: About) -> Result:
    """Add an activation function of Keras; return None for an unknown function."""
    name = getattr(function, "__name__", str(function))
    if name == "linear":
        return x
    if name in ACTIVATIONS:
        return t.builder.node(ACTIVATIONS[name], [x], about)
    if name in ("softmax", "log_softmax"):
        return t.builder.node(name, [x], about, axis=len(about["shape"]) - 1)
    if name == "elu":
        return t.builder.node("elu", [x], about, alpha=1.0)
    if name == "leaky_relu":
        return t.builder.node("leaky_relu", [x], about, slope=0.2)
    if name == "selu":
        return t.builder.node("*", [GAMMA, t.builder.node("elu", [x], about, alpha=ALPHA)], about)
    return None


def input_shape(t: Any, node: Any) -> tuple[int, ...]:
    """Return the shape of the first input of a layer."""
    return tuple(int(n) for n in t.tensors_of(node.input_tensors[0]).shape)


def masks_of(node: Any) -> list[str]:
    """Return the names of the masks that a call of a layer gets."""
    keywords = node.arguments.kwargs.items()
    return [n for n, value in keywords if n.endswith("mask") and hasattr(value, "shape")]


@RULES.of("Dense")
def _dense(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    weights = {"W": layer.kernel} | ({"b": layer.bias} if layer.use_bias else {})
    settings = {"units": layer.units, "bias": bool(layer.use_bias)}
    return activate(t, layer.activation, t.layer("dense", inputs, settings, weights, about), about)


@RULES.of("EinsumDense")
def _einsum_dense(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    """Add a product of matrices, if the last axes of the input and the first of the kernel are
    summed."""
    layer, shape = node.operation, input_shape(t, node)
    sources, result = layer.equation.replace(" ", "").split("->")
    left, right = sources.split(",")
    count = next((n for n in range(1, len(right)) if left.endswith(right[:n])), 0)
    if not count or result != left[:-count] + right[count:]:
        return None
    kernel = tuple(int(n) for n in layer.kernel.shape)
    depth, units, lead = math.prod(kernel[:count]), math.prod(kernel[count:]), shape[:-count]
    x = t.builder.reshape(inputs[0], {**about, "shape": (*lead, depth)})
    wide = {**about, "shape": (*lead, units)}
    if layer.bias is not None and len(layer.bias.shape) != len(kernel) - count:
        return None
    weights = {"W": layer.kernel} | ({"b": layer.bias} if layer.bias is not None else {})
    settings = {"units": units, "bias": layer.bias is not None}
    value = t.builder.reshape(t.layer("dense", [x], settings, weights, wide), about)
    return activate(t, layer.activation, value, about)


@RULES.of("Embedding")
def _embedding(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    settings = {"rows": layer.input_dim, "units": layer.output_dim}
    return t.layer("embedding", inputs, settings, {"table": layer._embeddings}, about)


def pads_of(layer: Any, shape: Sequence[int], kernel: Sequence[int]) -> list[list[int]] | None:
    """Return the padding before and after each axis of an image; None for another padding.

    ``shape`` has the axes of the image.
    """
    strides = layer.strides
    dilations = getattr(layer, "dilation_rate", None) or [1] * len(kernel)
    if layer.padding == "valid":
        return [[0, 0] for _ in kernel]
    pairs = []
    for length, window, stride, step in zip(shape, kernel, strides, dilations, strict=True):
        wide = (window - 1) * step + 1
        if layer.padding == "causal":
            pairs.append([wide - 1, 0])
            continue
        total = max((math.ceil(length / stride) - 1) * stride + wide - length, 0)
        pairs.append([total // 2, total - total // 2])
    return pairs


@RULES.of("Conv1D", "Conv2D", "DepthwiseConv2D")
def _convolution(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, kernel = node.operation, node.operation.kernel
    if layer.data_format != "channels_last":
        return None
    shape = input_shape(t, node)
    depthwise = type(layer).__name__ == "DepthwiseConv2D"
    size = list(kernel.shape[:-2])
    pads = pads_of(layer, shape[1:-1], size)
    if pads is None:
        return None
    settings = {
        "units": about["shape"][-1],
        "kernel": [int(n) for n in size],
        "stride": list(layer.strides),
        "padding": short_pads(pads),
        "dilation": list(layer.dilation_rate),
        "groups": shape[-1] if depthwise else layer.groups,
        "bias": bool(layer.use_bias),
    }
    weights = {"W": kernel} | ({"b": layer.bias} if layer.use_bias else {})
    result = t.layer(f"conv{len(size)}d", inputs, settings, weights, about)
    return activate(t, layer.activation, result, about)


@RULES.of("BatchNormalization")
def _batch_norm(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    axis = layer.axis[0] if isinstance(layer.axis, list | tuple) else layer.axis
    if axis % len(about["shape"]) != len(about["shape"]) - 1 or not (layer.center and layer.scale):
        return None
    weights = {
        "gamma": layer.gamma,
        "beta": layer.beta,
        "moving_mean": layer.moving_mean,
        "moving_variance": layer.moving_variance,
    }
    if not (layer.trainable and t.in_training(node)):
        mean, variance = (t.weight(weights[n]) for n in ("moving_mean", "moving_variance"))
        scaled = t.builder.standardized(inputs[0], mean, variance, layer.epsilon, about)
        for op, weight in (("*", layer.gamma), ("+", layer.beta)):
            scaled = t.builder.node(op, [scaled, t.weight(weight)], about)
        return scaled
    settings = {"epsilon": layer.epsilon, "momentum": layer.momentum}
    return t.layer("batch_norm", inputs, settings, weights, about)


@RULES.of("LayerNormalization", "GroupNormalization")
def _norm(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    axis = layer.axis[0] if isinstance(layer.axis, list | tuple) else layer.axis
    if axis % len(about["shape"]) != len(about["shape"]) - 1 or not (layer.center and layer.scale):
        return None
    weights = {"gamma": layer.gamma, "beta": layer.beta}
    if type(layer).__name__ == "LayerNormalization":
        return t.layer("layer_norm", inputs, {"epsilon": layer.epsilon}, weights, about)
    channels = about["shape"][-1]
    groups = channels if layer.groups == -1 else layer.groups
    settings = {"groups": groups, "each": channels // groups, "epsilon": layer.epsilon}
    views = {n: (t.weight(variable), "") for n, variable in weights.items()}
    return t.builder.group_norm(inputs[0], settings, views, about)


@RULES.of("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
def _dropout(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, shape = node.operation, about["shape"]
    mask = layer.noise_shape
    if hasattr(layer, "_get_noise_shape"):
        mask = layer._get_noise_shape(t.tensors_of(node.input_tensors[0]))
    lengths = [n or length for n, length in zip(mask or shape, shape, strict=True)]
    keep = round(1 - layer.rate, 12)
    if keep == 1 or not t.in_training(node):
        return inputs[0]
    return t.builder.dropout(inputs[0], keep, lengths, about)


@RULES.of("Activation")
def _activation(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    return activate(t, node.operation.activation, inputs[0], about)


@RULES.of("ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax")
def _unit(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, x = node.operation, inputs[0]
    match type(layer).__name__:
        case "LeakyReLU":
            return t.builder.node("leaky_relu", [x], about, slope=float(layer.negative_slope))
        case "ELU":
            return t.builder.node("elu", [x], about, alpha=float(layer.alpha))
        case "Softmax":
            rank = len(about["shape"])
            axis = layer.axis if isinstance(layer.axis, int) else None
            return None if axis is None else t.builder.node("softmax", [x], about, axis=axis % rank)
        case "PReLU":
            below = t.builder.node("relu", [t.builder.node("negative", [x], about)], about)
            scaled = t.builder.node("*", [t.weight(layer.alpha), below], about)
            return t.builder.node("-", [t.builder.node("relu", [x], about), scaled], about)
    if layer.threshold:
        return None
    slope = float(layer.negative_slope)
    x = (
        t.builder.node("leaky_relu", [x], about, slope=slope)
        if slope
        else t.builder.node("relu", [x], about)
    )
    high = layer.max_value
    return x if high is None else t.builder.node("minimum", [x, float(high)], about)


@RULES.of(*MERGES)
def _merge(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    name = type(node.operation).__name__
    value = inputs[0]
    for other in inputs[1:]:
        value = t.builder.node(MERGES[name], [value, other], about)
    return t.builder.node("/", [value, len(inputs)], about) if name == "Average" else value


@RULES.of("Concatenate")
def _concat(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    axis = node.operation.axis % len(about["shape"])
    return t.builder.node("concat", inputs, about, axis=axis)


@RULES.of("Flatten", "Reshape")
def _reshape(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    if getattr(node.operation, "data_format", "channels_last") != "channels_last":
        return None
    return t.builder.node("reshape", [inputs[0]], about)


@RULES.of("Permute")
def _permute(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    return t.builder.node("permute", inputs, about, axes=[0, *node.operation.dims])


@RULES.of("Rescaling")
def _rescale(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    scaled = t.builder.node("*", [inputs[0], float(layer.scale)], about)
    return t.builder.node("+", [scaled, float(layer.offset)], about) if layer.offset else scaled


@RULES.of(*(f"Global{kind}Pooling{n}D" for kind in ("Average", "Max") for n in (1, 2)))
def _global_pool(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, rank = node.operation, len(input_shape(t, node))
    if layer.data_format != "channels_last":
        return None
    op = "mean" if "Average" in type(layer).__name__ else "max"
    axes, keepdims = list(range(1, rank - 1)), bool(layer.keepdims)
    if not masks_of(node):
        return t.builder.node(op, inputs, about, axis=axes, keepdims=keepdims)
    if op == "max":
        return None
    x, mask = inputs
    column = (*t.builder.shape_of(mask), 1)
    inside = t.builder.node("cast", [mask], about, column[:2])
    inside = t.builder.node("reshape", [inside], about, column)
    unmasked = t.builder.node("*", [x, inside], about, input_shape(t, node))
    total = t.builder.node("sum", [unmasked], about, axis=axes, keepdims=keepdims)
    shape = (*about["shape"][:-1], 1)
    count = t.builder.node("sum", [inside], about, shape, axis=axes, keepdims=keepdims)
    return t.builder.node("/", [total, count], about)


@RULES.of(*(f"{kind}Pooling{n}D" for kind in ("Average", "Max") for n in (1, 2)))
def _pool(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, shape = node.operation, input_shape(t, node)
    kernel = list(layer.pool_size)
    pads = pads_of(layer, shape[1:-1], kernel)
    if layer.data_format != "channels_last" or pads is None:
        return None
    windows = {
        "size": kernel,
        "stride": list(layer.strides),
        "dilation": [1] * len(kernel),
        "pads": pads,
    }
    op = "max" if "Max" in type(layer).__name__ else "mean"
    # Keras does not count padding.
    return t.builder.pool(inputs[0], windows, op, about)


@RULES.of("ZeroPadding1D", "ZeroPadding2D")
def _pad(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return None
    pairs = [layer.padding] if len(about["shape"]) == 3 else layer.padding
    return t.builder.pad(inputs[0], dict(enumerate(pairs, 1)), about)


@RULES.of("UpSampling1D", "UpSampling2D")
def _upsample(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, shape, x = node.operation, list(input_shape(t, node)), inputs[0]
    usual = getattr(layer, "data_format", "channels_last") == "channels_last"
    if not usual or getattr(layer, "interpolation", "nearest") != "nearest":
        return None
    sizes = [layer.size] if isinstance(layer.size, int) else list(layer.size)
    for axis, times in enumerate(sizes, 1):
        x = t.builder.node("reshape", [x], about, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
        copies = (*shape[: axis + 1], times, *shape[axis + 1 :])
        x = t.builder.node("concat", [x] * times, about, copies, axis=axis + 1)
        shape[axis] *= times
        x = t.builder.node("reshape", [x], about, shape)
    return x
