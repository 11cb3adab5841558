"""The rules that translate Keras layers into the neutral graph, by class name.

A rule gets the translation, the node of Keras' graph, the operands of its inputs, and shape, kind,
modules and place of the result. It returns the operand of the result, or None for a setting that
has no translation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.extend.models import Operand

About = Mapping[str, Any]
Result = Operand | None
# The translation is a `trace.KerasTranslation`, which imports this module.
Rule = Callable[[Any, Any, Sequence[Operand], About], Result]
RULES: dict[str, Rule] = {}
# The rules of keras.ops, by the class name of the operation.
OPERATIONS: dict[str, Rule] = {}
ACTIVATIONS = {
    **{n: n for n in ("relu", "sigmoid", "tanh", "softplus", "exp", "log")},
    "silu": "silu",
    "swish": "silu",
    "exponential": "exp",
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


def rule(*names: str, of: dict[str, Rule] = RULES) -> Callable[[Rule], Rule]:
    """Register a function as the rule of layers."""

    def register(function: Rule) -> Rule:
        of.update(dict.fromkeys(names, function))
        return function

    return register


def add(
    t: Any,
    op: str,
    inputs: Sequence[Operand],
    about: About,
    shape: Sequence[int] | None = None,
    **attributes: Any,
) -> Operand:
    """Add a node, with another shape than the layer's result if given."""
    own = {**about, **({} if shape is None else {"shape": tuple(shape)})}
    return t.builder.add(op, inputs, attributes, **own)


def activate(t: Any, function: Any, x: Operand, about: About) -> Result:
    """Add an activation function of Keras; return None for an unknown function."""
    name = getattr(function, "__name__", str(function))
    if name == "linear":
        return x
    if name in ACTIVATIONS:
        return add(t, ACTIVATIONS[name], [x], about)
    if name in ("softmax", "log_softmax"):
        return add(t, name, [x], about, axis=len(about["shape"]) - 1)
    if name == "elu":
        return add(t, "elu", [x], about, alpha=1.0)
    if name == "gelu":
        return add(t, "gelu", [x], about)
    if name == "leaky_relu":
        return add(t, "leaky_relu", [x], about, slope=0.2)
    if name == "relu6":
        return add(t, "minimum", [add(t, "relu", [x], about), 6.0], about)
    if name == "softsign":
        below = add(t, "+", [1, add(t, "abs", [x], about)], about)
        return add(t, "/", [x, below], about)
    if name == "mish":
        return add(t, "*", [x, add(t, "tanh", [add(t, "softplus", [x], about)], about)], about)
    if name == "selu":
        return add(t, "*", [GAMMA, add(t, "elu", [x], about, alpha=ALPHA)], about)
    if name in ("hard_sigmoid", "hard_silu", "hard_swish"):
        gate = add(t, "hard_sigmoid_sixth", [x], about)
        return gate if name == "hard_sigmoid" else add(t, "*", [x, gate], about)
    return None


def input_shape(t: Any, node: Any, number: int = 0) -> tuple[int, ...]:
    """Return the shape of an input of a layer."""
    return tuple(int(n) for n in t.tensors_of(node.input_tensors[number]).shape)


@rule("Dense")
def _dense(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    weights = {"W": layer.kernel} | ({"b": layer.bias} if layer.use_bias else {})
    settings = {"units": layer.units, "bias": bool(layer.use_bias)}
    return activate(t, layer.activation, t.layer("dense", inputs, settings, weights, about), about)


@rule("Embedding")
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


def short_pads(pairs: Sequence[Sequence[int]]) -> list[Any]:
    """Return one number for each axis if the padding before and after it is the same."""
    equal = all(low == high for low, high in pairs)
    return [low for low, _ in pairs] if equal else [list(pair) for pair in pairs]


@rule("Conv1D", "Conv2D", "DepthwiseConv2D")
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


@rule("BatchNormalization")
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


@rule("LayerNormalization", "GroupNormalization")
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
    return t.layer("group_norm", inputs, settings, weights, about)


@rule("Dropout")
def _dropout(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    if layer.noise_shape is not None:
        return None
    keep = round(1 - layer.rate, 12)
    return inputs[0] if keep == 1 else t.layer("dropout", inputs, {"keep": keep}, {}, about)


@rule("Activation")
def _activation(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    return activate(t, node.operation.activation, inputs[0], about)


@rule("ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax")
def _unit(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, x = node.operation, inputs[0]
    match type(layer).__name__:
        case "LeakyReLU":
            return add(t, "leaky_relu", [x], about, slope=float(layer.negative_slope))
        case "ELU":
            return add(t, "elu", [x], about, alpha=float(layer.alpha))
        case "Softmax":
            rank = len(about["shape"])
            axis = layer.axis if isinstance(layer.axis, int) else None
            return None if axis is None else add(t, "softmax", [x], about, axis=axis % rank)
        case "PReLU":
            below = add(t, "relu", [add(t, "negative", [x], about)], about)
            scaled = add(t, "*", [t.weight(layer.alpha), below], about)
            return add(t, "-", [add(t, "relu", [x], about), scaled], about)
    if layer.threshold:
        return None
    slope = float(layer.negative_slope)
    x = add(t, "leaky_relu", [x], about, slope=slope) if slope else add(t, "relu", [x], about)
    high = layer.max_value
    return x if high is None else add(t, "minimum", [x, float(high)], about)


@rule(*MERGES)
def _merge(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    name = type(node.operation).__name__
    value = inputs[0]
    for other in inputs[1:]:
        value = add(t, MERGES[name], [value, other], about)
    return add(t, "/", [value, len(inputs)], about) if name == "Average" else value


@rule("Concatenate")
def _concat(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    axis = node.operation.axis % len(about["shape"])
    return add(t, "concat", inputs, about, axis=axis)


@rule("Flatten", "Reshape")
def _reshape(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    if getattr(node.operation, "data_format", "channels_last") != "channels_last":
        return None
    return add(t, "reshape", [inputs[0]], about)


@rule("Permute")
def _permute(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    return add(t, "permute", inputs, about, axes=[0, *node.operation.dims])


@rule("Rescaling")
def _rescale(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    scaled = add(t, "*", [inputs[0], float(layer.scale)], about)
    return add(t, "+", [scaled, float(layer.offset)], about) if layer.offset else scaled


@rule(*(f"Global{kind}Pooling{n}D" for kind in ("Average", "Max") for n in (1, 2)))
def _global_pool(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, rank = node.operation, len(input_shape(t, node))
    if layer.data_format != "channels_last":
        return None
    op = "mean" if "Average" in type(layer).__name__ else "max"
    axes = list(range(1, rank - 1))
    return add(t, op, inputs, about, axis=axes, keepdims=bool(layer.keepdims))


@rule(*(f"{kind}Pooling{n}D" for kind in ("Average", "Max") for n in (1, 2)))
def _pool(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, shape = node.operation, input_shape(t, node)
    kernel = list(layer.pool_size)
    pads = pads_of(layer, shape[1:-1], kernel)
    if layer.data_format != "channels_last" or pads is None:
        return None
    largest = "Max" in type(layer).__name__
    padded = any(n for pair in pads for n in pair)
    square = len(kernel) == 2 and len(set(kernel)) == len(set(layer.strides)) == 1
    same = all(pair == [pads[0][0]] * 2 for pair in pads)
    if square and same and (largest or not padded):
        settings = {"window": kernel, "stride": list(layer.strides), "padding": short_pads(pads)}
        return t.layer("max_pool_first" if largest else "avg_pool", inputs, settings, {}, about)
    windows = {"size": kernel, "stride": list(layer.strides), "pads": pads}
    op = "max" if largest else "mean"
    result = over_windows(t, inputs[0], windows, op, about)
    if largest or not padded:
        return result
    # Keras does not count padding: divide by the share of each window that is inside the image.
    last = (*shape[:-1], 1)
    cut = {"axis": len(shape) - 1, "start": 0, "stop": 1, "step": 1, "length": shape[-1]}
    part = add(t, "slice", inputs, about, last, **cut)
    ones = add(t, "+", [1, add(t, "*", [0, part], about, last)], about, last)
    one = {**about, "shape": (*about["shape"][:-1], 1)}
    return add(t, "/", [result, over_windows(t, ones, windows, "mean", one)], about)


def over_windows(t: Any, x: Operand, windows: Mapping[str, Any], op: str, about: About) -> Operand:
    """Add the mean or maximum over windows; ``about`` describes the result."""
    kernel, shape = windows["size"], about["shape"]
    rank = len(kernel)
    attributes = {
        **windows,
        "axes": list(range(1, 1 + rank)),
        "dilation": [1] * rank,
        "lowest": op == "max",
    }
    own = (*shape[: 1 + rank], *kernel, shape[-1])
    value = add(t, "windows", [x], about, own, **attributes)
    return add(t, op, [value], about, axis=list(range(1 + rank, 1 + 2 * rank)), keepdims=False)


@rule("ZeroPadding1D", "ZeroPadding2D")
def _pad(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, shape, x = node.operation, list(input_shape(t, node)), inputs[0]
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return None
    pairs = [layer.padding] if len(shape) == 3 else layer.padding
    # A window of one entry with padding is the entry; its axis of length 1 is removed again.
    for axis, pair in enumerate(pairs, 1):
        shape[axis] += sum(pair)
        attributes = {
            "axes": [axis],
            "size": [1],
            "stride": [1],
            "dilation": [1],
            "pads": [list(pair)],
            "lowest": False,
        }
        own = (*shape[: axis + 1], 1, *shape[axis + 1 :])
        x = add(t, "windows", [x], about, own, **attributes)
        x = add(t, "reshape", [x], about, shape)
    return x


@rule("UpSampling1D", "UpSampling2D")
def _upsample(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer, shape, x = node.operation, list(input_shape(t, node)), inputs[0]
    usual = getattr(layer, "data_format", "channels_last") == "channels_last"
    if not usual or getattr(layer, "interpolation", "nearest") != "nearest":
        return None
    sizes = [layer.size] if isinstance(layer.size, int) else list(layer.size)
    for axis, times in enumerate(sizes, 1):
        x = add(t, "reshape", [x], about, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
        copies = (*shape[: axis + 1], times, *shape[axis + 1 :])
        x = add(t, "concat", [x] * times, about, copies, axis=axis + 1)
        shape[axis] *= times
        x = add(t, "reshape", [x], about, shape)
    return x


@rule("LSTM", "GRU", "SimpleRNN")
def _recurrent(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    layer = node.operation
    name = shipped(layer)
    if name is None or len(inputs) > 1:
        return None
    time, shape = input_shape(t, node)[1], input_shape(t, node)
    x = inputs[0]
    if layer.go_backwards:
        x = add(t, "reverse", [x], about, shape)
    own = {**about, "shape": (shape[0], time, layer.units)}
    # The harness knows how Keras packs the weights of this layer.
    h = recurrent_layer(t, name, x, layer.units, layer.name, own)
    if layer.return_sequences:
        return h
    return add(t, "select", [h], about, axis=1, index=time - 1, length=time)


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


@rule("Bidirectional")
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
    for start, index in ((0, time - 1), (units, 0)):
        step = add(t, "select", [h], about, axis=1, index=index, length=time)
        cut = {"axis": 1, "start": start, "stop": start + units, "step": 1, "length": 2 * units}
        parts.append(add(t, "slice", [step], about, (batch, units), **cut))
    return add(t, "concat", parts, about, axis=1)


@rule("TimeDistributed")
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
}


@rule(*BINARY, of=OPERATIONS)
def _binary(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    values = [t.operands.get(id(a), a) for a in node.arguments.args]
    if len(values) != 2 or not all(isinstance(v, str | int | float) for v in values):
        return None
    return add(t, BINARY[type(node.operation).__name__], values, about)


@rule(*UNARY, of=OPERATIONS)
def _unary(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    return add(t, UNARY[type(node.operation).__name__], inputs, about)


@rule("Reshape", "ExpandDims", "Squeeze", of=OPERATIONS)
def _new_shape(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    return add(t, "reshape", inputs, about)


@rule("Mean", "Sum", "Max", of=OPERATIONS)
def _reduce(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    operation, rank = node.operation, len(input_shape(t, node))
    axis = operation.axis
    axes = list(range(rank)) if axis is None else [axis] if isinstance(axis, int) else list(axis)
    name = type(operation).__name__.lower()
    axes = sorted(a % rank for a in axes)
    return add(t, name, inputs, about, axis=axes, keepdims=bool(operation.keepdims))
