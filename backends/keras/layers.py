"""The Keras layers that run instead of the equations of a spec's layers, and how their variables
correspond to the spec's parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import signature
from typing import Any

from harness.extend import ClaimableCall, Join, Native, Packing, Part, Stack, Tensors

from .attention import KIND as ATTENTION
from .attention import parts_of


def claimed_loss(keras: Any, definition: str, without: Collection[str]) -> Native | None:
    """Return Keras' cross-entropy of logits as a native loss. Return None for other losses, and for
    those in ``without``, which the engine computes wrongly.

    The loss copies its logits. Without the copy, if a softmax has computed the logits, Keras would
    use the input of that softmax instead.
    """
    functions = {
        "sparse_cross_entropy": keras.losses.sparse_categorical_crossentropy,
        "cross_entropy": keras.losses.categorical_crossentropy,
    }
    if definition not in functions or definition in without:
        return None
    function, copy = functions[definition], keras.ops.copy

    def run(values: Tensors, packed: Tensors) -> Sequence[Any]:
        return [function(values["target"], copy(values["logits"]), from_logits=True)]

    return Native(f"keras.losses.{function.__name__}", run, Packing({}))


def layer_name(instance: str) -> str:
    """Return the name in Keras of a layer of the spec: the spec's name without dots, because the
    torch engine rejects dots."""
    return instance.replace(".", "_")


def is_operation_name(name: str, keras: Any) -> bool:
    """Return whether Keras may give the name ``name`` to an operation, e.g. ``get_item_3`` to a
    ``GetItem``. A layer must not have such a name, because names in a model must be unique."""
    stem = name.rstrip("_0123456789")
    classes = [keras.Operation]
    for operation in classes:
        classes += [c for c in operation.__subclasses__() if not issubclass(c, keras.layers.Layer)]
    snake = (
        re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operation.__name__).lower() for operation in classes
    )
    return stem in snake


def own_name(instance: str, keras: Any) -> str:
    """Return a name in Keras for the layer ``instance`` of the spec. It differs from all names that
    Keras gives to operations."""
    name = layer_name(instance)
    return f"{name}_layer" if is_operation_name(name, keras) else name


def _gates(stem: str, gates: str, axis: int) -> Join:
    return Join(tuple(Part(f"{stem}_{gate}") for gate in gates), axis)


def _gated(gates: str, bias: Join | Stack, way: str) -> Packing:
    """Return how the variables of a layer with gates correspond to the spec's parameters. Each
    variable joins the parameters of all gates, in the order ``gates``. ``way`` is the prefix of the
    parameters, e.g. ``back_``."""
    kernels = {
        f"{n}kernel": _gates(f"{way}{letter}", gates, 1)
        for n, letter in (("", "W"), ("recurrent_", "U"))
    }
    return Packing({**kernels, "bias": bias})


def _lstm(way: str = "") -> Packing:
    return _gated("ifgo", _gates(f"{way}b", "ifgo", 0), way)


def _gru(way: str = "") -> Packing:
    return _gated("zrn", Stack((_gates(f"{way}b", "zrn", 0), _gates(f"{way}c", "zrn", 0))), way)


def _both_ways(make_packing: Callable[[str], Packing]) -> Packing:
    ways = {"forward": make_packing(""), "backward": make_packing("back_")}
    return Packing({f"{way}.{n}": p for way, one in ways.items() for n, p in one.pieces.items()})


def variables(layer: Any) -> dict[str, Any]:
    """Return the variables of a Keras layer, by the names that the functions of this module use for
    them, e.g. ``kernel``."""
    kind = type(layer).__name__
    if kind == BOTH_WAYS:
        parts = {way: getattr(layer, name) for way, name in WAYS.items()}
    elif kind == ATTENTION:
        parts = parts_of(layer)
    else:
        return {v.name: v for v in layer.variables}
    return {f"{part}.{v.name}": v for part, inner in parts.items() for v in inner.variables}


_DENSE = {"kernel": Part("W"), "bias": Part("b")}
_SIMPLE = {"kernel": Part("W"), "recurrent_kernel": Part("U"), "bias": Part("b")}
_NO_BIAS = {"use_bias": False}
# The name of the only layer with moving statistics.
NORMALISES = "batch_norm"
# Name of a layer's definition -> Keras class, extra arguments, and layout of the parameters.
LAYERS: Mapping[str, tuple[str, Mapping[str, Any], Packing]] = {
    "embedding": ("Embedding", {}, Packing({"embeddings": Part("table")})),
    NORMALISES: ("BatchNormalization", {}, Packing.plain(("gamma", "beta"))),
    "layer_norm": ("LayerNormalization", {}, Packing.plain(("gamma", "beta"))),
    "rms_norm": ("RMSNormalization", {}, Packing({"scale": Part("gamma")})),
    "group_norm": ("GroupNormalization", {}, Packing.plain(("gamma", "beta"))),
    "dense": ("Dense", {}, Packing(_DENSE)),
    "conv1d": ("Conv1D", {}, Packing(_DENSE)),
    "conv2d": ("Conv2D", {}, Packing(_DENSE)),
    "conv2d_transpose": ("Conv2DTranspose", {}, Packing(_DENSE)),
    "avg_pool": ("AveragePooling2D", {}, Packing({})),
    "max_pool_first": ("MaxPooling2D", {}, Packing({})),
    "simple_rnn": ("SimpleRNN", {}, Packing(_SIMPLE)),
    "simple_rnn_without_bias": (
        "SimpleRNN",
        _NO_BIAS,
        Packing({n: p for n, p in _SIMPLE.items() if n != "bias"}),
    ),
    "lstm": ("LSTM", {}, _lstm()),
    "bidirectional_lstm": ("LSTM", {}, _both_ways(_lstm)),
    "masked_bidirectional_lstm": ("LSTM", {"zero_output_for_mask": True}, _both_ways(_lstm)),
    "gru": ("GRU", {"reset_after": False}, _gated("zrn", _gates("b", "zrn", 0), "")),
    "gru_reset_after": ("GRU", {"reset_after": True}, _gru()),
    "bidirectional_gru_reset_after": ("GRU", {"reset_after": True}, _both_ways(_gru)),
}
# The bidirectional layers, Keras' wrapper class, and the wrapper's attributes for both directions.
TWO_WAYS = tuple(name for name in LAYERS if "bidirectional" in name)
BOTH_WAYS = "Bidirectional"
WAYS: Mapping[str, str] = {"forward": "forward_layer", "backward": "backward_layer"}
_SAME = ("linear", "relu", "tanh", "sigmoid", "softmax", "log_softmax", "gelu", "silu")
# Name of a function in specs -> its name in Keras.
ACTIVATIONS: Mapping[str, str] = {**{n: n for n in _SAME}, "hard_sigmoid_sixth": "hard_sigmoid"}
INITIALIZERS = tuple(
    f"{name}_initializer" for name in ("embeddings", "kernel", "depthwise", "recurrent")
)
RECURRENT = ("SimpleRNN", "LSTM", "GRU")
POOLS = ("AveragePooling2D", "MaxPooling2D")
DEPTHWISE = "DepthwiseConv2D"
IMAGES = ("Conv1D", "Conv2D", "Conv2DTranspose", DEPTHWISE, *POOLS)


def layer_of(layer: ClaimableCall) -> tuple[str, Mapping[str, Any], Packing]:
    """Return the name of the Keras class for a layer, extra arguments of its constructor, and how
    its variables correspond to the spec's parameters."""
    kind, extra, packing = LAYERS[layer.definition]
    pieces = dict(packing.pieces)
    if layer.attributes.get("bias") is False:
        extra = {**extra, **_NO_BIAS}
        pieces = {n: p for n, p in pieces.items() if n.rpartition(".")[2] != "bias"}
    if kind == "Conv2D":
        rows, columns, each, units = layer.shapes["W"]
        groups = int(layer.attributes["groups"])
        if groups > 1 and each == 1:
            kind = DEPTHWISE
            pieces["kernel"] = Part("W", shape=(rows, columns, groups, units // groups))
    return kind, extra, Packing(pieces)


def has_faulty_gradient(layer: ClaimableCall, on_torch: bool) -> bool:
    """Return whether the gradient of a convolution is wrong or fails on a CPU: known differences
    torch-conv1x1-strided and keras-torch-single-output-channel."""
    if layer.definition not in ("conv1d", "conv2d", "conv2d_transpose"):
        return False
    *kernel, others, last = layer.shapes["W"]
    if set(kernel) == {1}:
        return layer.definition != "conv2d_transpose" and set(layer.attributes["stride"]) != {1}
    return on_torch and layer.definition != "conv1d" and last == 1 < others


def image_arguments(kind: str, layer: ClaimableCall, on_cpu: bool) -> dict[str, Any]:
    """Return the constructor arguments of a convolution or pool (the Keras class ``kind``). If
    Keras does not support a setting, the argument is None."""
    attributes = layer.attributes
    if kind in POOLS:
        window, strides = attributes["window"], attributes["stride"]
        padding = _padding(window, strides, attributes["padding"])
        even = set(strides) == {1} and all(size % 2 for size in window)
        if (
            padding == "same"
            and "count_padding" in attributes
            and (attributes["count_padding"] or not even)
        ):
            padding = None  # Keras excludes padding from means; on torch, only an even padding
        return {"pool_size": window, "strides": strides, "padding": padding}
    *kernel, each, units = layer.shapes["W"]
    arguments: dict[str, Any] = {"kernel_size": tuple(kernel)}
    if kind == "Conv2DTranspose":
        stride = int(attributes["stride"])
        # If the stride exceeds the kernel, Keras returns a larger result.
        arguments |= {"filters": each, "strides": None if stride > kernel[0] else stride}
        # Padding "same" of Keras cuts what the kernel adds beyond the stride.
        same = 2 * attributes["padding"] == kernel[0] - stride
        arguments["padding"] = ("same" if same else None) if attributes["padding"] else "valid"
        return arguments | {"dilation_rate": 1 if attributes["dilation"] == 1 else None}
    strides, groups = attributes["stride"], int(attributes["groups"])
    arguments |= {"strides": strides, "padding": _padding(kernel, strides, attributes["padding"])}
    # On a CPU, TensorFlow cannot compute gradients of a dilated kernel, or of groups of channels.
    arguments["dilation_rate"] = 1 if set(attributes["dilation"]) == {1} else None
    if kind == DEPTHWISE:
        arguments["depth_multiplier"] = units // groups
        return arguments | ({"strides": None} if len(set(strides)) > 1 else {})
    return arguments | {"filters": units, "groups": None if on_cpu and groups > 1 else groups}


def _padding(kernel: Sequence[int], strides: Sequence[int], padding: Any) -> str | None:
    """Return Keras' name of a padding, e.g. ``same``, for a kernel without dilation; return None if
    Keras does not support it."""
    if padding == "same":
        return "same"
    if not any(map(any, padding)):
        return "valid"
    sides = tuple(((size - 1) // 2, size // 2) for size in kernel)
    return "same" if set(strides) == {1} and sides == padding else None


def hard_sigmoid_fifth(ops: Any, x: Any) -> Any:
    """Return the hard sigmoid with slope 1/5 of each entry of ``x``. Keras 1 and 2 have this
    function, but Keras 3 does not."""
    y = 0.2 * x + 0.5
    y = ops.where(y <= 0.0, ops.zeros_like(y), y)
    return ops.where(y >= 1.0, ops.ones_like(y), y)


def zero_initializers(kind: Callable[..., Any]) -> dict[str, str]:
    """Return the arguments with which the constructor of the Keras class ``kind`` initializes all
    parameters to zero.

    The initial values are never used. Random values would be slow: JAX compiles a function for each
    shape.
    """
    return {n: "zeros" for n in signature(kind).parameters if n in INITIALIZERS}


def layer_arguments(
    kind: str, layer: ClaimableCall, activation: Callable[[str], Any], on_cpu: bool
) -> dict[str, Any]:
    """Return the constructor arguments of the Keras class ``kind`` for a layer. If Keras does not
    have a function, e.g. an activation, the argument is None. ``activation`` maps a function's name
    to Keras' name or function. ``on_cpu`` is true for TensorFlow on the CPU."""
    attributes = layer.attributes
    if kind == "Embedding":
        rows, units = layer.shapes["table"]
        return {"input_dim": rows, "output_dim": units}
    if kind == "BatchNormalization":
        return {"epsilon": attributes["epsilon"], "momentum": attributes["momentum"]}
    if kind in ("LayerNormalization", "RMSNormalization", "GroupNormalization"):
        return {name: attributes[name] for name in ("epsilon", "groups") if name in attributes}
    if kind == "MaxPooling2D" and on_cpu:
        return {"pool_size": None}  # this layer ignores NaN
    if kind in IMAGES:
        named = {n: activation(attributes[n]) for n in ("activation",) if n in attributes}
        return image_arguments(kind, layer, on_cpu) | named
    units = next(s for n, s in layer.shapes.items() if n.startswith("W"))[1]
    if attributes.get("second_bias"):
        return {"units": None}  # Keras has one bias
    arguments = {"units": units, "activation": activation(attributes["activation"])}
    if kind in RECURRENT:
        arguments |= {"return_sequences": True, "return_state": True}
    if "gate" in attributes:
        arguments["recurrent_activation"] = activation(attributes["gate"])
    return arguments
