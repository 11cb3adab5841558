"""The torch models with attention: gpt, llama, moe, bert and vit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_layers import Arrays, linear
from torch_parts import (
    Model,
    Tensors,
    channels_first,
    conv,
    dense,
    embedding,
    inside,
    layer_norm,
    mean_of,
    part,
    parts,
    rms_norm,
)

Sizes = Mapping[str, int]


class Attention(nn.Module):
    """Self-attention, whose first three products are one."""

    def __init__(self, arrays: Arrays, heads: int, causal: bool) -> None:
        super().__init__()
        weight, bias = (np.concatenate([arrays[f"{k}_{n}"] for n in "qkv"], -1) for k in "Wb")
        self.qkv, self.out = linear(weight, bias), linear(arrays["W_o"], arrays["b_o"])
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, time, features = x.shape
        q, k, v = self.qkv(x).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        return self.out(y.transpose(1, 2).reshape(batch, time, features))


class Block(nn.Module):
    """Attention and two dense layers; normalised before each part, or behind as in BERT."""

    def __init__(
        self, arrays: Arrays, heads: int, causal: bool, behind: bool = False, gelu: str = "none"
    ) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = (layer_norm(arrays, f"norm_{n}") for n in (1, 2))
        self.attend = Attention(part(arrays, "attend"), heads, causal)
        self.up, self.down = dense(arrays, "up"), dense(arrays, "down")
        self.behind, self.gelu = behind, gelu

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.behind:
            x = self.norm_1(x + self.attend(x, mask))
            return self.norm_2(x + self._dense(x))
        x = x + self.attend(self.norm_1(x), mask)
        return x + self._dense(self.norm_2(x))

    def _dense(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate=self.gelu))


class Gpt(Model):
    """A decoder whose table is also the last product."""

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.embed = embedding(arrays["embed.table"])
        self.place = embedding(arrays["place.table"])
        self.blocks = nn.Sequential(
            *(Block(own, sizes["heads"], True, gelu="tanh") for own in parts(arrays, "blocks"))
        )
        self.norm = layer_norm(arrays, "norm")
        self.out = linear(arrays["embed.table"].T)
        self.out.weight = self.embed.weight

    def forward(self, inputs: Tensors) -> Tensor:
        chars = inputs["chars"]
        x = self.embed(chars) + self.place(torch.arange(chars.shape[1], device=chars.device))
        return self.out(self.norm(self.blocks(x)))


class GroupedAttention(nn.Module):
    """Causal attention whose queries share keys and values, with rotary positions."""

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.queries = sizes["groups"] * sizes["each"] * 2 * sizes["half"]
        self.keys, self.head = sizes["groups"] * 2 * sizes["half"], 2 * sizes["half"]
        self.qkv = linear(np.concatenate([arrays[f"W_{n}"] for n in "qkv"], -1))
        self.out = linear(arrays["W_o"])

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        three = self.qkv(x).split((self.queries, self.keys, self.keys), -1)
        q, k, v = (y.unflatten(-1, (-1, self.head)).transpose(1, 2) for y in three)
        q, k = rotate(q, turn), rotate(k, turn)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.out(y.transpose(1, 2).flatten(2))


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Pairs of entries, one of each half, turned: with a cosine and a sine for both halves."""
    cos, sin = turn
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class LlamaBlock(nn.Module):
    """Attention and a gated pair of dense layers."""

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = (rms_norm(arrays, f"norm_{n}") for n in (1, 2))
        self.attend = GroupedAttention(part(arrays, "attend"), sizes)
        self.gate, self.up, self.down = (dense(arrays, n) for n in ("gate", "up", "down"))

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attend(self.norm_1(x), turn)
        h = self.norm_2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(Model):
    """A decoder with rotary positions, which are computed once for its longest text."""

    def __init__(self, arrays: Arrays, sizes: Sizes, longest: int = 256) -> None:
        super().__init__()
        self.embed = embedding(arrays["embed.table"])
        self.blocks = nn.ModuleList(LlamaBlock(own, sizes) for own in parts(arrays, "blocks"))
        self.norm, self.out = rms_norm(arrays, "norm"), dense(arrays, "out")
        half = sizes["half"]
        each = torch.arange(longest)[:, None] * 10000.0 ** (-torch.arange(half) / half)
        each = torch.cat((each, each), -1)
        self.register_buffer("cos", each.cos())
        self.register_buffer("sin", each.sin())

    def forward(self, inputs: Tensors) -> Tensor:
        x = self.embed(inputs["chars"])
        turn = self.cos[: x.shape[1]], self.sin[: x.shape[1]]
        for block in self.blocks:
            x = block(x, turn)
        return self.out(self.norm(x))


class Experts(nn.Module):
    """All experts as one product of batches, of which each step has its best."""

    def __init__(self, arrays: Arrays, chosen: int) -> None:
        super().__init__()
        self.route, self.chosen = linear(arrays["W_route"]), chosen
        self.up, self.down = (nn.Parameter(torch.tensor(arrays[f"W_{n}"])) for n in ("up", "down"))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        score, expert = self.route(rows).topk(self.chosen)
        weight = torch.zeros(len(rows), len(self.up), dtype=x.dtype, device=x.device)
        weight = weight.scatter(1, expert, score.softmax(-1))
        each = F.silu(rows @ self.up) @ self.down  # [experts, rows, features]
        return torch.einsum("erf,re->rf", each, weight).view_as(x)


class Moe(Model):
    """One block with a mixture of experts."""

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.embed = embedding(arrays["embed.table"])
        self.place = embedding(arrays["place.table"])
        self.norm_1, self.norm_2, self.norm = (
            layer_norm(arrays, name) for name in ("norm_1", "norm_2", "norm")
        )
        self.attend = Attention(part(arrays, "attend"), sizes["heads"], True)
        self.mix, self.out = Experts(part(arrays, "mix"), sizes["chosen"]), dense(arrays, "out")

    def forward(self, inputs: Tensors) -> Tensor:
        chars = inputs["chars"]
        x = self.embed(chars) + self.place(torch.arange(chars.shape[1], device=chars.device))
        x = x + self.attend(self.norm_1(x))
        return self.out(self.norm(x + self.mix(self.norm_2(x))))


class Bert(Model):
    """An encoder whose rows end; logits of the characters that were hidden."""

    output = "logits"

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.embed = embedding(arrays["embed.table"])
        self.place = embedding(arrays["place.table"])
        self.norm, self.norm_out = (layer_norm(arrays, n) for n in ("norm", "norm_out"))
        self.blocks = nn.ModuleList(
            Block(own, sizes["heads"], False, behind=True) for own in parts(arrays, "blocks")
        )
        self.transform, self.out = dense(arrays, "transform"), dense(arrays, "out")

    def forward(self, inputs: Tensors) -> Tensor:
        chars = inputs["chars"]
        # Added to the scores, as a row may be empty: minus infinity would make it NaN.
        mask = torch.zeros(chars.shape, dtype=self.place.weight.dtype, device=chars.device)
        mask = mask.masked_fill(~inside(chars, inputs["lengths"]), -1e30)[:, None, None]
        x = self.embed(chars) + self.place.weight[: chars.shape[1]]
        x = self.norm(x)
        for block in self.blocks:
            x = block(x, mask)
        return self.out(self.norm_out(F.gelu(self.transform(x))))

    def predict(self, inputs: Tensors) -> Tensor:
        return self(inputs)

    def lose(self, inputs: Tensors, targets: Tensors) -> Tensor:
        kept = targets["hidden"] & inside(inputs["chars"], inputs["lengths"])
        return mean_of(kept, self(inputs), targets["target"])


class Vit(Model):
    """Patches, as a convolution makes them, that attend to each other."""

    output = "digit"

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        weight, patch = arrays["embed.W"], sizes["patch"]
        kernel = weight.reshape(patch, patch, -1, weight.shape[1])
        self.cut = conv({"cut.W": kernel, "cut.b": arrays["embed.b"]}, "cut", stride=patch)
        self.place = nn.Parameter(torch.tensor(arrays["place.table"]))
        self.blocks = nn.Sequential(
            *(Block(own, sizes["heads"], False) for own in parts(arrays, "blocks"))
        )
        self.norm, self.out = layer_norm(arrays, "norm"), dense(arrays, "out")

    def forward(self, inputs: Tensors) -> Tensor:
        x = self.cut(channels_first(inputs["image"])).flatten(2).transpose(1, 2) + self.place
        return self.out(self.norm(self.blocks(x)).mean(1))
