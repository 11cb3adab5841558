"""Models of flax in small sizes, with random weights, for ``ports.py``."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

# The inputs of each model.
INPUTS = {
    "cnn": ["x=batch,16,16,3"],
    "lstm": ["x=batch,time,12"],
    "attention_block": ["x=batch,time,16"],
    "NnxGru": ["x=batch,time,12"],
    "NnxAttention": ["x=batch,time,16"],
    "layers_in_a_scan": ["x=batch,time,16"],
}


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (8, 16):
            x = nn.Conv(width, (3, 3))(x)
            x = nn.BatchNorm(use_running_average=True)(x)
            x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape((x.shape[0], -1)))


cnn = Cnn()


def cnn_variables(key):
    return cnn.init(key, jnp.ones((2, 16, 16, 3)))


class Lstm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(5)(nn.RNN(nn.LSTMCell(16))(nn.RNN(nn.LSTMCell(16))(x)))


lstm = Lstm()


def lstm_variables(key):
    return lstm.init(key, jnp.ones((2, 5, 12)))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x), mask=mask)
        return x + nn.Dense(16)(nn.gelu(nn.Dense(64)(nn.LayerNorm()(x))))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(3):
            x = Block()(x)
        return nn.Dense(5)(nn.LayerNorm()(x))


attention_block = Transformer()


def attention_block_variables(key):
    return attention_block.init(key, jnp.ones((2, 5, 16)))


class NnxGru(nnx.Module):
    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(12, 16, rngs=rngs))
        self.out = nnx.Linear(16, 5, rngs=rngs)

    def __call__(self, x):
        return self.out(self.rnn(x))


class NnxAttention(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(16, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(4, 16, rngs=rngs, decode=False)
        self.up = nnx.Linear(16, 32, rngs=rngs)
        self.down = nnx.Linear(32, 16, rngs=rngs)

    def __call__(self, x):
        x = x + self.attend(self.norm(x))
        return x + self.down(nnx.gelu(self.up(x)))


def layers_in_a_scan(params, x):
    """A stack of equal layers, whose weights have the layer as first axis."""

    def layer(x, weights):
        return x + jnp.tanh(x @ weights["w"] + weights["b"]), None

    return jax.lax.scan(layer, x, params)[0]


def layers_in_a_scan_variables(key):
    return {"w": 0.3 * jax.random.normal(key, (4, 16, 16)), "b": jnp.zeros((4, 16))}
