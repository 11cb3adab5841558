"""Torch modules that call many operators."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Outputs = dict[str, Any]


class Sequence(nn.Module):
    """Operators on x [batch, time, 6]: selection, masks, sums at computed places."""

    def __init__(self) -> None:
        super().__init__()
        self.l, self.table, self.pairs = nn.Linear(6, 6), nn.Embedding(6, 3), nn.Bilinear(6, 6, 3)
        self.clipped = nn.RNN(6, 4, nonlinearity="relu", batch_first=True)
        self.plain = nn.RNN(6, 4, bias=False, batch_first=True)

    def forward(self, x: Any) -> Outputs:
        h = self.l(x)
        return {
            **self.select(x, h),
            **self.mask(x, h),
            "pairs": self.pairs(h, x),
            "layers": self.clipped(x)[0] + self.plain(x)[0],
            "moved": h.repeat(1, 1, 2) + h.roll((1, 2), (1, 2)).repeat(1, 1, 2),
            "distance": torch.cdist(x, h),
            "sums": h.logsumexp((1, 2)) + F.softplus(h, 2, 3).sum((1, 2)),
            "products": h.cumprod(-1)[..., 1:] + h.diff(dim=-1) + h.prod(-1, keepdim=True),
            "scaled": h / h.abs().max(),
        }

    def select(self, x: Any, h: Any) -> Outputs:
        top, low = h.topk(2), h.topk(3, largest=False)[0]
        hot = x.scatter(2, top.indices, top.values) + x.scatter_add(2, x.argsort(), h)
        return {
            "best": h.gather(1, x.argmax(1, keepdim=True)),
            "sorted": h.sort(-1)[0] + low.sum(-1, keepdim=True) + h.median(-1, keepdim=True)[0],
            "rows": self.table(top.indices) * top.values[..., None]
            + self.table(h.argmin(-1, True)),
            "scattered": hot + x.index_add(2, torch.tensor([0, 2]), h[:, :, :2]),
            "hot": F.one_hot(h.argmax(-1), 6).to(h) @ h.mT,
            "chosen": h.masked_fill(h < top.values[..., -1:], -math.inf).softmax(-1),
        }

    def mask(self, x: Any, h: Any) -> Outputs:
        time = x.shape[1]
        above = torch.ones(time, time).triu(1).bool()
        added = torch.zeros(time, time).masked_fill(above, -math.inf)
        scores = h @ x.mT
        return {
            "attended": F.scaled_dot_product_attention(x, h, x, attn_mask=added),
            "masked": scores.masked_fill(above, -math.inf).softmax(-1),
            "triangles": scores.tril() + scores.triu(2) + scores.tril(-2),
            "diagonal": scores.diagonal(dim1=1, dim2=2),
        }


class Curves(nn.Module):
    """Functions of numbers, cells and norms on x [batch, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.l, self.lstm, self.gru = nn.Linear(6, 6), nn.LSTMCell(6, 4), nn.GRUCell(6, 4)
        self.norm = nn.RMSNorm(6, eps=1e-6, elementwise_affine=False)

    def forward(self, x: Any) -> Outputs:
        h = self.l(x)
        more = h * h + 1
        parts = torch.remainder(h, 0.7) + torch.fmod(h, 0.7)
        return {
            "steps": h.round() + h.ceil() + h.trunc() + torch.div(h, 0.3, rounding_mode="floor"),
            "parts": parts + F.rrelu(h) + h.logcumsumexp(-1),
            "curves": h.tan() / 10 + h.sinh() + h.cosh() + h.exp2() + h.erfc() + h.asinh(),
            "logs": more.log2() + more.log10() + F.kl_div(h.log_softmax(-1), x.softmax(-1)),
            "padded": F.pad(h, (1, 2), value=3.0) + F.pad(h[:, None], (1, 2), "circular")[:, 0],
            "moments": sum(torch.var_mean(h, -1)) + self.norm(h).sum(-1),
            "cells": self.lstm(x)[0] + self.gru(x),
        }


class Images(nn.Module):
    """Convolutions and pools of x [batch, 4, 5, 6]."""

    def __init__(self) -> None:
        super().__init__()
        up, weight_norm = nn.ConvTranspose2d, nn.utils.parametrizations.weight_norm
        self.up = up(4, 3, 3, stride=2, padding=1, output_padding=1)
        self.wide = up(4, 3, (3, 2), stride=(2, 1), bias=False)
        self.groups = up(4, 6, 4, stride=2, padding=1, groups=2)
        self.shipped = up(4, 6, 3, dilation=2)
        self.line = nn.ConvTranspose1d(4, 3, 4, stride=2, padding=1)
        self.deep = nn.Conv3d(1, 3, 3, padding=1, stride=2)
        self.computed = weight_norm(nn.Conv2d(4, 4, 3, groups=2, padding="same"))
        self.group_norm = nn.GroupNorm(2, 4, affine=False)
        self.batch_norm = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x: Any) -> Outputs:
        framed = F.pad(x, (1, 1, 1, 1), value=-math.inf)
        return {
            **{n: getattr(self, n)(x) for n in ("up", "wide", "groups", "shipped", "computed")},
            "line": self.line(x[:, :, 0]),
            "deep": self.deep(x[:, None]),
            "norms": self.group_norm(x) + self.batch_norm(x) + F.local_response_norm(x, 3),
            "unfolded": F.unfold(x, 3, padding=1, stride=2),
            "folded": F.fold(F.unfold(x, 2), (5, 6), 2),
            "slid": x.unfold(3, 3, 2),
            "adaptive": F.adaptive_avg_pool2d(x, (2, 4)) + F.adaptive_max_pool2d(x, (2, 4)),
            "ceil": F.avg_pool2d(x, 2, 2, ceil_mode=True) + F.max_pool2d(x, 3, 2, 1),
            "dilated": F.max_pool2d(x, 2, 1, dilation=2) + F.max_pool2d(framed, 5, 1),
            "ranks": F.max_pool3d(x[:, None], 2)[:, 0].sum() + F.max_pool1d(x[:, :, 0], 3, 2, 1),
        }
