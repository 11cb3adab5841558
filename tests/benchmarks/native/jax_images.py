"""The JAX models of images: lenet, resnet, resnet_bottleneck, resnet50 and unet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax_layers import Arrays, dense
from jax_parts import avg_pool, batch_norm, conv, conv_transpose, max_pool, repeated

Sizes = Mapping[str, int]
relu, tanh = jax.nn.relu, jnp.tanh


def lenet(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    x = avg_pool(tanh(conv(p["conv_1"], inputs["image"])), 2)
    x = avg_pool(tanh(conv(p["conv_2"], x)), 2)
    x = tanh(dense(p["dense_1"], x.reshape(len(x), -1)))
    return dense(p["out"], tanh(dense(p["dense_2"], x)))


class Norms:
    """Normalises by parameters and statistics of one part, and keeps the new statistics."""

    def __init__(self, p: Arrays, s: Any, training: bool, **constants: Any) -> None:
        self.p, self.s, self.training, self.constants = p, s, training, constants
        self.new: dict[str, Any] = {}

    def __call__(self, name: str, x: jax.Array) -> jax.Array:
        own = self.p[name], self.s[name]
        y, self.new[name] = batch_norm(*own, x, self.training, **self.constants)
        return y


def basic(p: Arrays, s: Any, x: jax.Array, training: bool, stride: int) -> tuple[jax.Array, Any]:
    """Two convolutions beside what goes by."""
    norm = Norms(p, s, training)
    y = relu(norm("norm_1", conv(p["conv_1"], x, 1, stride)))
    y = norm("norm_2", conv(p["conv_2"], y, 1))
    if "short" in p:
        x = norm("norm_3", conv(p["short"], x, 0, stride))
    return relu(x + y), norm.new


def bottleneck(
    p: Arrays, s: Any, x: jax.Array, training: bool, stride: int
) -> tuple[jax.Array, Any]:
    """Three convolutions beside what goes by."""
    norm = Norms(p, s, training)
    y = relu(norm("norm_1", conv(p["conv_1"], x, 0, stride)))
    y = relu(norm("norm_2", conv(p["conv_2"], y, 1)))
    y = norm("norm_3", conv(p["conv_3"], y))
    if "short" in p:
        x = norm("norm_4", conv(p["short"], x, 0, stride))
    return relu(x + y), norm.new


def residual(block: Any, stages: Mapping[str, int]) -> Any:
    """A model of blocks: ``stages`` are the strides of single ones, 0 where a layer is repeated."""

    def model(p: Arrays, s: Any, inputs: Arrays, training: bool) -> tuple[jax.Array, Any]:
        norm = Norms(p, s, training)
        x, new = relu(norm("norm", conv(p["conv"], inputs["image"], 1))), norm.new
        for name, stride in stages.items():
            if stride:
                x, new[name] = block(p[name], s[name], x, training, stride)
                continue
            new[name] = {}
            for number, own in enumerate(repeated(p[name])):
                x, found = block(own, s[name][str(number)], x, training, 1)
                new[name][str(number)] = found
        return dense(p["out"], x.mean((1, 2))), new

    return model


resnet = residual(basic, {"first": 0, "down_2": 2, "second": 0, "down_3": 2, "third": 0})
resnet_bottleneck = residual(
    bottleneck, {"wide_1": 1, "first": 0, "down_2": 2, "second": 0, "down_3": 2, "third": 0}
)


TORCH: Mapping[str, Any] = {"epsilon": 1e-5, "ddof": 1}


def bottleneck50(
    p: Arrays, s: Any, x: jax.Array, training: bool, stride: int
) -> tuple[jax.Array, Any]:
    """The block of torchvision's ResNet-50, whose stride is in the middle."""
    norm = Norms(p, s, training, **TORCH)
    y = relu(norm("bn1", conv(p["conv1"], x)))
    y = relu(norm("bn2", conv(p["conv2"], y, 1, stride)))
    y = norm("bn3", conv(p["conv3"], y))
    if "downsample_0" in p:
        x = norm("downsample_1", conv(p["downsample_0"], x, 0, stride))
    return relu(x + y), norm.new


def resnet50(p: Arrays, s: Any, inputs: Arrays, training: bool) -> tuple[jax.Array, Any]:
    norm = Norms(p, s, training, **TORCH)
    image = inputs["x"].transpose(0, 2, 3, 1)
    x = max_pool(relu(norm("bn1", conv(p["conv1"], image, 3, 2))), 3, 2, 1)
    new = norm.new
    for stage in (1, 2, 3, 4):
        name, more = f"layer{stage}_0", f"layer{stage}_1"
        stride = 1 if stage == 1 else 2
        x, new[name] = bottleneck50(p[name], s[name], x, training, stride)
        new[more] = {}
        for number, own in enumerate(repeated(p[more])):
            x, found = bottleneck50(own, s[more][str(number)], x, training, 1)
            new[more][str(number)] = found
    return dense(p["fc"], x.mean((1, 2))), new


def twice(p: Arrays, x: jax.Array) -> jax.Array:
    """Two convolutions that keep the size."""
    return relu(conv(p["second"], relu(conv(p["first"], x, 1)), 1))


def unet(p: Arrays, inputs: Arrays, sizes: Sizes) -> jax.Array:
    whole = twice(p["down_1"], inputs["image"])
    half = twice(p["down_2"], max_pool(whole, 2))
    low = twice(p["bottom"], max_pool(half, 2))
    wide = jnp.concatenate([half, conv_transpose(p["grow_2"], low, 2)], -1)
    wide = conv_transpose(p["grow_1"], twice(p["up_2"], wide), 2)
    return conv(p["out"], twice(p["up_1"], jnp.concatenate([whole, wide], -1)))
