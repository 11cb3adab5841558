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
Result = Operand | None
# The translation is a `trace.KerasTranslation`, which imports this module.
Rule = Callable[[Any, Any, Sequence[Operand], About], Result]
RULES: Rules[Rule] = Rules()
# The rules of keras.ops, by the class name of the operation.
OPERATIONS: Rules[Rule] = Rules()
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


def input_shape(t: Any, node: Any, number: int = 0) -> tuple[int, ...]:
    """Return the shape of an input of a layer."""
    return tuple(int(n) for n in t.tensors_of(node.input_tensors[number]).shape)


@RULES.of("Dense")
def _dense(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    weights = {"W": layer.kernel} | ({"b": layer.bias} if layer.use_bias else {})
    settings = {"units": layer.units, "bias": bool(layer.use_bias)}
    return activate(t, layer.activation, t.layer("dense", inputs, settings, weights, about), about)


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


@RULES.of("Dropout")
def _dropout(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    if layer.noise_shape is not None:
        return None
    keep = round(1 - layer.rate, 12)
    return inputs[0] if keep == 1 else t.layer("dropout", inputs, {"keep": keep}, {}, about)


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
    axes = list(range(1, rank - 1))
    return t.builder.node(op, inputs, about, axis=axes, keepdims=bool(layer.keepdims))


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


@RULES.of("LSTM", "GRU", "SimpleRNN")
def _recurrent(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    name = shipped(layer)
    if name is None or len(inputs) > 1:
        return None
    time, shape = input_shape(t, node)[1], input_shape(t, node)
    x = inputs[0]
    if layer.go_backwards:
        x = t.builder.node("reverse", [x], about, shape)
    own = {**about, "shape": (shape[0], time, layer.units)}
    # The harness knows how Keras packs the weights of this layer.
    h = recurrent_layer(t, name, x, layer.units, layer.name, own)
    if layer.return_sequences:
        return h
    return t.builder.select(h, 1, -1, about)


def recurrent_layer(t: Any, name: str, x: Operand, units: int, owner: str, about: About) -> Operand:
    """Add a shipped recurrent layer, whose weights are those of a layer of the model."""
    attributes = {
        "layer": name,
        "settings": {"units": units},
        "weights": {},
        "channels": -1,
        "rules": [["", owner]],
        "owner": owner,
    }
    return t.builder.add("layer", [x], attributes, **about)


def shipped(layer: Any) -> str | None:
    """Return the shipped layer of a recurrent layer, or None if it has other settings."""
    kind = type(layer).__name__
    odd = layer.return_state or layer.stateful or layer.dropout or layer.recurrent_dropout
    functions = [layer.activation.__name__] + (
        [] if kind == "SimpleRNN" else [layer.recurrent_activation.__name__]
    )
    if odd or not layer.use_bias or functions not in (["tanh"], ["tanh", "sigmoid"]):
        return None
    reset = kind == "GRU" and layer.reset_after
    return {"LSTM": "lstm", "SimpleRNN": "simple_rnn"}.get(
        kind, "gru_reset_after" if reset else "gru"
    )


@RULES.of("Bidirectional")
def _bidirectional(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    inner, back = layer.forward_layer, layer.backward_layer
    name = shipped(inner) if hasattr(inner, "return_state") else None
    if name not in ("lstm", "gru_reset_after") or shipped(back) != name or len(inputs) > 1:
        return None
    if layer.merge_mode != "concat" or inner.units != back.units:
        return None
    batch, time = input_shape(t, node)[:2]
    units = inner.units
    own = {**about, "shape": (batch, time, 2 * units)}
    h = recurrent_layer(t, f"bidirectional_{name}", inputs[0], units, layer.name, own)
    if inner.return_sequences:
        return h
    parts = []
    for start, index in ((0, -1), (units, 0)):
        step = t.builder.select(h, 1, index, about)
        parts.append(t.builder.cut(step, 1, (start, start + units, 1), about))
    return t.builder.node("concat", parts, about, axis=1)


@RULES.of("TimeDistributed")
def _every_step(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    inner = node.operation.layer
    if type(inner).__name__ != "Dense":
        return None
    weights = {"W": inner.kernel} | ({"b": inner.bias} if inner.use_bias else {})
    settings = {"units": inner.units, "bias": bool(inner.use_bias)}
    return activate(t, inner.activation, t.layer("dense", inputs, settings, weights, about), about)


BINARY = {
    "Add": "+",
    "Subtract": "-",
    "Multiply": "*",
    "Divide": "/",
    "TrueDivide": "/",
    "Power": "**",
    "Matmul": "@",
    "Maximum": "maximum",
    "Minimum": "minimum",
}
UNARY = {
    **{n.title(): n for n in ("relu", "sigmoid", "tanh", "exp", "log", "sqrt", "sin", "cos")},
    "Softplus": "softplus",
    "Silu": "silu",
    "Negative": "negative",
    "Absolute": "abs",
    **{n.title(): n for n in ("erf", "floor", "sign")},
}
COMPARISONS = {
    "Greater": ">",
    "GreaterEqual": ">=",
    "Less": "<",
    "LessEqual": "<=",
    "Equal": "==",
    "NotEqual": "!=",
}


@OPERATIONS.of(*BINARY, *COMPARISONS)
def _binary(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    values = [t.operands.get(id(a), a) for a in node.arguments.args]
    if len(values) != 2 or not all(isinstance(v, str | int | float) for v in values):
        return None
    name = type(node.operation).__name__
    return t.builder.node((BINARY | COMPARISONS)[name], values, about)


@OPERATIONS.of(*UNARY)
def _unary(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    return t.builder.node(UNARY[type(node.operation).__name__], inputs, about)


@OPERATIONS.of("Reshape", "ExpandDims", "Squeeze")
def _new_shape(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    return t.builder.node("reshape", inputs, about)


@OPERATIONS.of("Transpose")
def _transpose(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    rank = len(about["shape"])
    axes = node.operation.axes or range(rank)[::-1]
    return t.builder.node("permute", inputs, about, axes=[a % rank for a in axes])


@OPERATIONS.of("Square")
def _square(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    return t.builder.node("**", [inputs[0], 2], about)


@OPERATIONS.of("Softmax", "LogSoftmax")
def _softmax(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    name = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}[type(node.operation).__name__]
    axis = node.operation.axis
    if not isinstance(axis, int):
        return None
    return t.builder.node(name, inputs, about, axis=axis % len(about["shape"]))


@OPERATIONS.of("Concatenate")
def _join(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    axis = node.operation.axis % len(about["shape"])
    return t.builder.node("concat", inputs, about, axis=axis)


@OPERATIONS.of("Mean", "Sum", "Max", "Var")
def _reduce(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    operation, rank = node.operation, len(input_shape(t, node))
    axis = operation.axis
    axes = list(range(rank)) if axis is None else [axis] if isinstance(axis, int) else list(axis)
    name = type(operation).__name__.lower()
    axes = sorted(a % rank for a in axes)
    return t.builder.node(name, inputs, about, axis=axes, keepdims=bool(operation.keepdims))
