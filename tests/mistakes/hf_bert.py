"""Hugging Face's BERT without segments, and the same model with mistakes. The spec is ``bert``."""

from types import MappingProxyType

import torch
from torch import nn
from transformers import BertConfig, BertModel


class NoSegments(nn.Module):
    def forward(self, segments):
        return torch.zeros(())


class Right(nn.Module):
    more = MappingProxyType({})

    def __init__(self, vocab=86, heads=4, head=8, wide=128, depth=2, context=64):
        super().__init__()
        width = heads * head
        config = BertConfig(
            vocab_size=vocab,
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=wide,
            max_position_embeddings=context,
            layer_norm_eps=1e-5,
            pad_token_id=None,
            attn_implementation="eager",
            **self.more,
        )
        self.m = BertModel(config, add_pooling_layer=False)
        self.m.embeddings.token_type_embeddings = NoSegments()
        self.transform, self.out = nn.Linear(width, width), nn.Linear(width, vocab)
        self.norm_out = nn.LayerNorm(width)
        self.plant(self.m)

    def plant(self, net):
        pass

    def mask(self, inside):
        return inside

    def positions(self, chars):
        return torch.arange(chars.shape[1])[None]

    def end(self, h):
        return self.out(self.norm_out(nn.functional.gelu(self.transform(h))))

    def forward(self, chars, lengths):
        inside = torch.arange(chars.shape[1])[None] < lengths[:, None]
        mask, positions = self.mask(inside).long(), self.positions(chars)
        return self.end(self.m(chars, mask, position_ids=positions).last_hidden_state)


class IgnoresPadding(Right):
    def mask(self, inside):
        return torch.ones_like(inside)


class InvertedMask(Right):
    def mask(self, inside):
        return ~inside


class PositionsOfRoberta(Right):
    def positions(self, chars):
        return (super().positions(chars) + 2) % self.m.config.max_position_embeddings


class GeluTanh(Right):
    more = MappingProxyType({"hidden_act": "gelu_new"})


class NoFirstNorm(Right):
    def plant(self, net):
        net.embeddings.LayerNorm.forward = lambda x: x


class PreNorm(Right):
    def plant(self, net):
        for layer in net.encoder.layer:
            for output in (layer.attention.output, layer.output):
                output.forward = lambda h, x, output=output: output.LayerNorm(output.dense(h)) + x


class NoTransformActivation(Right):
    def end(self, h):
        return self.out(self.norm_out(self.transform(h)))
