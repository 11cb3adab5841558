"""Hugging Face's GPT-2, and the same model with mistakes. The spec is ``gpt``."""

from types import MappingProxyType

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.activations import ACT2FN


class Right(nn.Module):
    more = MappingProxyType({})

    def __init__(self, vocab=86, heads=4, head=8, wide=128, depth=2, context=64):
        super().__init__()
        config = GPT2Config(
            vocab_size=vocab,
            n_positions=context,
            n_embd=heads * head,
            n_layer=depth,
            n_head=heads,
            n_inner=wide,
            use_cache=False,
            attn_implementation="eager",
            **{"bos_token_id": 0, "eos_token_id": 0, **self.more},
        )
        self.m = GPT2LMHeadModel(config)
        self.plant(self.m.transformer)

    def plant(self, net):
        pass

    def arguments(self, chars):
        return {}

    def forward(self, chars):
        return self.m(chars, **self.arguments(chars)).logits


class Epsilon(Right):
    more = MappingProxyType({"layer_norm_epsilon": 1e-6})


class ExactGelu(Right):
    more = MappingProxyType({"activation_function": "gelu"})


class Unscaled(Right):
    more = MappingProxyType({"scale_attn_weights": False})


class ScaledByLayer(Right):
    more = MappingProxyType({"scale_attn_by_inverse_layer_idx": True})


class PositionsFromOne(Right):
    def arguments(self, chars):
        steps = torch.arange(1, chars.shape[1] + 1)
        return {"position_ids": (steps % self.m.config.n_positions)[None]}


class NoMask(Right):
    def arguments(self, chars):
        batch, time = chars.shape
        return {"attention_mask": torch.zeros(batch, 1, time, time)}


class SeesNextStep(Right):
    def arguments(self, chars):
        batch, time = chars.shape
        hidden = torch.ones(time, time).triu(2) * -1e30
        return {"attention_mask": hidden.expand(batch, 1, time, time)}


class NoLastNorm(Right):
    def plant(self, net):
        net.ln_f.forward = lambda x: x


class PostNorm(Right):
    def plant(self, net):
        for block in net.h:
            block.forward = lambda x, *_, block=block, **more: self.block(block, x, more)

    def block(self, block, x, more):
        x = block.ln_1(x + block.attn(x, attention_mask=more.get("attention_mask"))[0])
        return block.ln_2(x + block.mlp(x))


class NoActivationInOneBlock(Right):
    def plant(self, net):
        net.h[1].mlp.act = ACT2FN["linear"]
