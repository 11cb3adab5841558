"""A module of flax.linen to port, in a file that does not import flax.nnx."""

import flax.linen as nn
import jax
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


class Dropping(nn.Module):
    """A transformer block with dropout, also of attention, and batch norm."""

    shared: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        h = nn.MultiHeadDotProductAttention(
            2, dropout_rate=0.1, broadcast_dropout=self.shared, deterministic=not train
        )(nn.LayerNorm()(x))
        h = x + nn.Dropout(0.2)(h, deterministic=not train)
        wide = nn.Dense(16)(nn.BatchNorm(use_running_average=not train, momentum=0.9)(h))
        return h + nn.Dropout(0.3)(nn.Dense(8)(jnp.tanh(wide)), deterministic=not train)


dropping, sharing = Dropping(), Dropping(shared=True)


def dropping_variables(key):
    return dropping.init(key, jnp.ones((2, 5, 8)))


class Frozen(nn.Module):
    """A batch norm that uses its moving statistics in training mode."""

    @nn.compact
    def __call__(self, x, train=False):
        h = nn.BatchNorm(use_running_average=True)(nn.Dense(4)(x))
        return nn.Dropout(0.2)(h, deterministic=not train)


class Shaken(nn.Module):
    """A batch norm, and random numbers that are no dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        h = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        noise = jax.random.normal(self.make_rng("dropout"), h.shape) if train else 0
        return h + noise


frozen, shaken = Frozen(), Shaken()


def norm_variables(key):
    return frozen.init(key, jnp.ones((2, 8)))
