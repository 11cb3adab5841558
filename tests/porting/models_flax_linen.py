"""A module of flax.linen to port, in a file that does not import flax.nnx."""

import flax.linen as nn
import jax.numpy as jnp


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, memory):
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x), memory)
        return x + nn.Dense(8)(nn.relu(x))


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, x, memory):
        for _ in range(2):
            x = Block()(x, memory)
        return x


def make_decoder():
    return Decoder()


def decoder_variables(key):
    return make_decoder().init(key, jnp.ones((2, 5, 8)), jnp.ones((2, 7, 8)))
