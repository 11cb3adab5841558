"""Hugging Face's Llama, and the same model with mistakes. The spec is ``llama``."""

from types import MappingProxyType

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama


class Right(nn.Module):
    more = MappingProxyType({})

    def __init__(self, vocab=86, groups=2, each=2, half=4, wide=64, depth=2):
        super().__init__()
        self.each = each
        config = LlamaConfig(
            vocab_size=vocab,
            hidden_size=groups * each * 2 * half,
            head_dim=2 * half,
            num_attention_heads=groups * each,
            num_key_value_heads=groups,
            intermediate_size=wide,
            num_hidden_layers=depth,
            use_cache=False,
            attn_implementation="eager",
            **{"bos_token_id": 0, "eos_token_id": 0, "rms_norm_eps": 1e-6, **self.more},
        )
        self.m = LlamaForCausalLM(config)
        self.plant(self.m.model)

    def plant(self, net):
        pass

    def forward(self, chars):
        return self.m(chars).logits


class Epsilon(Right):
    more = MappingProxyType({"rms_norm_eps": 1e-5})


class Theta(Right):
    def plant(self, net):
        net.rotary_emb.inv_freq = net.rotary_emb.inv_freq.sqrt()


class RotatesNeighbours(Right):
    def forward(self, chars):
        return swapped(
            "apply_rotary_pos_emb",
            rotate_neighbours,
            lambda: super(RotatesNeighbours, self).forward(chars),
        )


class RepeatsGroups(Right):
    def forward(self, chars):
        def repeat(x, n):
            return x.repeat(1, n, 1, 1)

        return swapped("repeat_kv", repeat, lambda: super(RepeatsGroups, self).forward(chars))


class ActivatesUp(Right):
    def plant(self, net):
        for layer in net.layers:
            mlp = layer.mlp
            mlp.forward = lambda x, mlp=mlp: mlp.down_proj(
                mlp.gate_proj(x) * mlp.act_fn(mlp.up_proj(x))
            )


class NoLastNorm(Right):
    def plant(self, net):
        net.norm = Unused(net.norm)


class NoInnerResidual(Right):
    def plant(self, net):
        mlp = net.layers[0].mlp
        norm = net.layers[0].post_attention_layernorm
        norm.register_forward_pre_hook(lambda _, given: setattr(self, "h", given[0]))
        mlp.register_forward_hook(lambda _, given, returned: returned - self.h)


class Unused(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.weight = norm.weight

    def forward(self, x):
        return x


def swapped(name, function, run):
    """Run with another function in the module of Hugging Face's model."""
    before = getattr(modeling_llama, name)
    setattr(modeling_llama, name, function)
    try:
        return run()
    finally:
        setattr(modeling_llama, name, before)


def rotate_neighbours(q, k, cos, sin, *_, **__):
    half = cos.shape[-1] // 2
    cos, sin = (part[..., :half].repeat_interleave(2, -1)[:, None] for part in (cos, sin))

    def turn(x):
        return torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)

    return q * cos + turn(q) * sin, k * cos + turn(k) * sin
