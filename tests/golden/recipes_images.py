"""Convolutions, pools and residual blocks: which kernel is the witness of which."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.image_kernels import (
    KERAS,
    TORCH,
    WEIGHTS,
    Options,
    block,
    convolved,
    convolved_in_keras,
    pooled,
    pooled_in_keras,
)
from golden.recipe import Recipe

# Stride, dilation and padding, each at several values and with an activation.
CONVOLUTIONS: tuple[tuple[Options, str], ...] = (
    ({"stride": 1, "dilation": 1, "padding": 0}, "linear"),
    ({"stride": 2, "dilation": 1, "padding": 1}, "tanh"),
    ({"stride": 1, "dilation": 2, "padding": 2}, "relu"),
)
# Attributes of one kind of convolution alone. Keras' witnesses have neither groups nor two sides.
BY_CHANNEL = {"groups": "groups * each", "units": "2 * groups * each"}
VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("conv2d", {"bias": False}),
    ("conv2d", BY_CHANNEL),
    ("conv1d", {"bias": False, **BY_CHANNEL}),
)
SIDES: tuple[tuple[str, Options], ...] = (
    ("conv2d", {"stride": [1, 2], "dilation": [2, 1], "padding": [[1, 0], [0, 3]]}),
    ("conv1d", {"stride": [1], "dilation": [1], "padding": [[2, 0]]}),
)
POOLS: tuple[tuple[int, Options], ...] = (
    (2, {"stride": 2, "padding": 0}),
    (3, {"stride": 2, "padding": 1}),
    (3, {"stride": 1, "padding": 0}),
)


def images() -> list[Recipe]:
    """Each layer by torch, and where it takes the options by Keras."""
    import keras
    import torch

    made = []
    for options, act in CONVOLUTIONS:
        for name, more in [*((name, {}) for name in WEIGHTS), *VARIANTS]:
            given = {"kernel": 3, **options, "activation": act, **more}
            source = f"torch.nn.functional.{TORCH.get(name, name)}"
            made.append(Recipe("layer", name, source, convolved(torch, name, options, act), given))
            # On a CPU TensorFlow has no gradient of a dilated kernel, nor of groups.
            if options["dilation"] == 1 and "groups" not in given:
                kernel = convolved_in_keras(keras, name, options, act)
                made.append(Recipe("layer", name, f"keras.layers.{KERAS[name]}", kernel, given))
    for name, options in SIDES:
        given, source = {"kernel": 2, **options}, f"torch.nn.functional.{name}"
        made.append(Recipe("layer", name, source, convolved(torch, name, options, "linear"), given))
    made += _blocks(torch)
    return made + _pools(torch, keras)


def _blocks(torch: Any) -> list[Recipe]:
    """Residual blocks, of which only one has its stride to choose."""
    source = "torch.nn.functional.conv2d"
    kinds = [("basic_block", 2, None), ("basic_block_down", 2, 2), ("bottleneck_block", 3, None)]
    made = [Recipe("layer", n, source, block(torch, convs, s)) for n, convs, s in kinds]
    other = {"epsilon": 0.125, "momentum": 0.75}
    for name, convs, stride in [*kinds, ("bottleneck_block_down", 3, 2)]:
        made.append(Recipe("layer", name, source, block(torch, convs, stride, 0.125), other))
    for stride in (2, 1):
        kernel, given = block(torch, 3, stride), {"stride": stride}
        made.append(Recipe("layer", "bottleneck_block_down", source, kernel, given))
    return made


def _pools(torch: Any, keras: Any) -> list[Recipe]:
    """Pools; where it matters which of what ties is taken, of entries that tie."""
    made = []
    # Else zeros that pad might be no larger than what is there.
    below = -np.abs(np.random.default_rng(6).normal(size=(3, 4, 4, 2)))
    for window, options in POOLS:
        for name in ("max_pool", "avg_pool", "max_pool_first"):
            given = {"window": window, **options}
            kernel = pooled(torch, name, window, options)
            source = f"torch.nn.functional.{name.removesuffix('_first')}2d"
            material = {"x": below} if options["padding"] else {}
            if name == "max_pool_first":
                material = {"x": np.round(2 * below) / 2}
            made.append(Recipe("layer", name, source, kernel, given, given=material))
            if not options["padding"]:
                kernel = pooled_in_keras(keras, name, window, options)
                source = f"keras.layers.{KERAS[name]}"
                made.append(Recipe("layer", name, source, kernel, given, given=material))
    sides = {"stride": [2, 1], "padding": [1, 0]}
    for name in ("max_pool", "avg_pool", "max_pool_first"):
        kernel = pooled(torch, name, [3, 2], sides)
        source = f"torch.nn.functional.{name.removesuffix('_first')}2d"
        made.append(Recipe("layer", name, source, kernel, {"window": [3, 2], **sides}))
    options = {"stride": 2, "padding": 1}
    kernel = pooled(torch, "avg_pool", 3, {**options, "count_include_pad": False})
    given = {"window": 3, **options, "count_padding": False}
    made.append(Recipe("layer", "avg_pool", "torch.nn.functional.avg_pool2d", kernel, given))
    return made
