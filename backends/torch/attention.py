"""Attention layers of the torch backend: linear projections, and torch's fused attention between
them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from harness.extend import ClaimableCall, Join, Native, Packing, Part, Piece, Tensors

Tensor = Any
# A function that computes attention from queries, keys and values, each [batch, heads, time, head],
# and from all inputs of the layer. Its result has the same shape.
Middle = Callable[[Tensor, Tensor, Tensor, Tensors], Tensor]
LABEL = "torch.nn.functional.scaled_dot_product_attention"
_attend = torch.nn.functional.scaled_dot_product_attention


def _causal(q: Tensor, k: Tensor, v: Tensor, values: Tensors) -> Tensor:
    return _attend(q, k, v, is_causal=True)


def _all(q: Tensor, k: Tensor, v: Tensor, values: Tensors) -> Tensor:
    return _attend(q, k, v)


def _masked(q: Tensor, k: Tensor, v: Tensor, values: Tensors) -> Tensor:
    """Compute attention with a padding mask. If all steps are masked, return the mean of all values
    (torch returns NaN)."""
    mask = values["mask"][:, None, None, :]
    some = mask.any(-1, keepdim=True)
    chosen = _attend(q, k, v, attn_mask=mask | ~some)
    return torch.where(some, chosen, v.mean(-2, keepdim=True))


def _of(middle: Middle) -> Callable[[ClaimableCall], Native]:
    """Return a function that implements an attention layer with one input projection, as
    torch.nn.MultiheadAttention has."""

    def claim(layer: ClaimableCall) -> Native:
        heads = layer.attributes["heads"]
        linear = torch.nn.functional.linear

        def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
            three = linear(values["x"], packed["in_proj_weight"], packed["in_proj_bias"])
            # [batch, time, 3 * heads * head] -> three of [batch, heads, time, head]
            q, k, v = three.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
            y = middle(q, k, v, values).transpose(1, 2).flatten(2)
            return [linear(y, packed["out_proj.weight"], packed["out_proj.bias"])]

        pieces: dict[str, Piece] = {
            "in_proj_weight": Join(tuple(Part(f"W_{name}", True) for name in "qkv"), 0),
            "in_proj_bias": Join(tuple(Part(f"b_{name}") for name in "qkv"), 0),
            "out_proj.weight": Part("W_o", transpose=True),
            "out_proj.bias": Part("b_o"),
        }
        return Native(LABEL, run, Packing(pieces))

    return claim


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the two halves of x [..., time, 2 * half] by angles, given as ``cos`` and ``sin``
    [time, half]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def _grouped_attention(layer: ClaimableCall) -> Native:
    groups, each, half, base = (layer.attributes[n] for n in ("groups", "each", "half", "base"))
    linear = torch.nn.functional.linear

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        x = values["x"]
        places = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
        pairs = torch.arange(half, dtype=x.dtype, device=x.device)
        turn = places[:, None] * base ** (-pairs / half)
        cos, sin = turn.cos(), turn.sin()
        shares = (groups * each, groups, groups)
        three = linear(x, packed["qkv"]).unflatten(-1, (sum(shares), 2 * half)).transpose(1, 2)
        q, k, v = three.split(shares, 1)
        # Repeat the keys and values of a group for each of its queries.
        k, v = (t.repeat_interleave(each, 1) for t in (_turned(k, cos, sin), v))
        y = _attend(_turned(q, cos, sin), k, v, is_causal=True)
        return [linear(y.transpose(1, 2).flatten(2), packed["o"])]

    pieces: dict[str, Piece] = {
        "qkv": Join(tuple(Part(f"W_{name}", True) for name in "qkv"), 0),
        "o": Part("W_o", transpose=True),
    }
    return Native(LABEL, run, Packing(pieces))


ATTENTION: Mapping[str, Callable[[ClaimableCall], Native]] = {
    "causal_attention": _of(_causal),
    "self_attention": _of(_all),
    "masked_attention": _of(_masked),
    "grouped_attention": _grouped_attention,
}
