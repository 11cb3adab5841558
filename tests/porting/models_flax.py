"""Modules of flax.linen and flax.nnx to port."""

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=True, momentum=0.9)(x)
        x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = nn.silu(nn.Conv(4, (3, 3), padding="VALID", use_bias=False)(x))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(5)(x.reshape((x.shape[0], -1)))


cnn = Cnn()


def cnn_variables(key):
    return cnn.init(key, jnp.ones((2, 12, 12, 3)))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x), mask=mask)
        return x + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))


block = Block()


def block_variables(key):
    return block.init(key, jnp.ones((2, 5, 8)))


class Mlp(nnx.Module):
    def __init__(self, rngs):
        self.up = nnx.Linear(3, 8, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.scaled = nnx.BatchNorm(8, rngs=rngs, momentum=0.95)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.down = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        return self.down(self.drop(self.scaled(self.norm(nnx.silu(self.up(x))))))


class Lstm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.RNN(nn.LSTMCell(6))(nn.RNN(nn.OptimizedLSTMCell(4))(x)))


lstm = Lstm()


def lstm_variables(key):
    return lstm.init(key, jnp.ones((2, 5, 3)))


class Gru(nnx.Module):
    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(3, 6, rngs=rngs))
        self.out = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(self.rnn(x)[:, -1])


class Frozen(nnx.Module):
    """A batch norm that uses its moving statistics in training mode."""

    def __init__(self, rngs):
        self.up, self.norm = nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        return self.drop(self.norm(self.up(x), use_running_average=True))
