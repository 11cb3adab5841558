"""Convolutions, pools and residual blocks of torch and Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Tensors = Mapping[str, Any]
Kernel = Callable[[Tensors], Tensors]
Options = Mapping[str, Any]
TORCH = {"conv2d_transpose": "conv_transpose2d"}
KERAS = {
    "conv1d": "Conv1D",
    "conv2d": "Conv2D",
    "conv2d_transpose": "Conv2DTranspose",
    **dict.fromkeys(("max_pool", "max_pool_first"), "MaxPooling2D"),
    "avg_pool": "AveragePooling2D",
}
# torch's weight from the definition's, whose last axes are those of channels.
WEIGHTS = {"conv1d": (2, 1, 0), "conv2d": (3, 2, 0, 1), "conv2d_transpose": (3, 2, 0, 1)}


def _first(x: Any) -> Any:
    """Channels from the last axis to where torch has them, behind the batch."""
    return x.movedim(-1, 1)


def convolved(torch: Any, name: str, options: Options, activation: str) -> Kernel:
    """torch's own functions; ``padding`` may have two sides."""
    F, act = torch.nn.functional, {"linear": lambda y: y, "tanh": torch.tanh, "relu": torch.relu}

    def kernel(v: Tensors) -> Tensors:
        x, weight = _first(v["x"]), v["W"].permute(WEIGHTS[name])
        given = dict(options)
        if name != "conv2d_transpose":
            given["groups"] = x.shape[1] // weight.shape[1]
        if isinstance(given["padding"], list):
            sides = [n for pair in reversed(given.pop("padding")) for n in pair]
            x = F.pad(x, sides)
        function = getattr(F, TORCH.get(name, name))
        return {"y": act[activation](function(x, weight, v.get("b"), **given).movedim(1, -1))}

    return kernel


def pooled(torch: Any, name: str, window: Any, options: Options) -> Kernel:
    """torch's own functions."""
    function = getattr(torch.nn.functional, f"{name.removesuffix('_first')}2d")
    return lambda v: {"y": function(_first(v["x"]), window, **options).movedim(1, -1)}


def convolved_in_keras(keras: Any, name: str, options: Options, activation: str) -> Kernel:
    """Keras' own layers, on an image that is padded before; a transpose is cut off after."""

    def kernel(v: Tensors) -> Tensors:
        import tensorflow as tf

        kind = getattr(keras.layers, KERAS[name])

        x, p, rank = v["x"], options["padding"], len(v["x"].shape) - 2
        shape = tuple(v["W"].shape)
        given: dict[str, Any] = {"kernel_size": shape[0], "strides": options["stride"]}
        given |= {"dilation_rate": options["dilation"]}
        given["filters"] = shape[-2] if name == "conv2d_transpose" else shape[-1]
        if name != "conv2d_transpose":
            x = tf.pad(x, [(0, 0), *[(p, p)] * rank, (0, 0)])
        weights = [v[n] for n in ("W", "b") if n in v]
        layer = kind(**given, use_bias=len(weights) == 2)
        layer.build(tuple(x.shape))
        y, _ = layer.stateless_call(weights, [], x)
        if name == "conv2d_transpose":
            # Keras adds what a stride larger than the kernel leaves.
            covered = options["dilation"] * (shape[0] - 1) + 1
            ends = [(n - 1) * options["stride"] + covered - p for n in v["x"].shape[1:-1]]
            y = y[:, p : ends[0], p : ends[1]]
        return {"y": keras.activations.get(activation)(y)}

    return kernel


def pooled_in_keras(keras: Any, name: str, window: int, options: Options) -> Kernel:
    """Keras' own layers."""
    return lambda v: {"y": getattr(keras.layers, KERAS[name])(window, options["stride"])(v["x"])}


def normalised(torch: Any, v: Tensors, x: Any, number: int, epsilon: float, stride: int = 1) -> Any:
    """torch's functions for a convolution of a block and what normalises it, in training."""
    F, conv = torch.nn.functional, f"conv_{number}" if f"conv_{number}.W" in v else "short"
    weight = v[f"{conv}.W"].permute(3, 2, 0, 1)
    y = F.conv2d(x, weight, None, stride, padding=weight.shape[-1] // 2)
    scale, shift = v[f"norm_{number}.gamma"], v[f"norm_{number}.beta"]
    return F.batch_norm(y, None, None, scale, shift, training=True, eps=epsilon)


def block(torch: Any, convs: int, stride: int | None, epsilon: float = 1e-3) -> Kernel:
    """A residual block of two or three convolutions; without a stride it keeps its channels."""

    def kernel(v: Tensors) -> Tensors:
        x = h = _first(v["x"])
        for number in range(1, convs):
            h = torch.relu(
                normalised(torch, v, h, number, epsilon, (stride or 1) if number == 1 else 1)
            )
        by = normalised(torch, v, x, convs + 1, epsilon, stride) if stride else x
        return {"y": torch.relu(by + normalised(torch, v, h, convs, epsilon)).movedim(1, -1)}

    return kernel
