"""Torch modules that the tests port."""

import torch
import torch.nn.functional as F
from torch import nn


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(6, 8)
        self.drop = nn.Dropout(0.1)
        self.down = nn.Linear(8, 5)

    def forward(self, x):
        return self.down(self.drop(torch.relu(self.up(x))))


def encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


class Tagger(nn.Module):
    """Two recurrent layers in two directions."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.rnn = nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(10, 3)

    def forward(self, chars):
        return self.out(self.rnn(self.embed(chars))[0])


class Classifier(nn.Module):
    """A recurrent layer whose final states are classified."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 5, bidirectional=True, batch_first=True)
        self.out = nn.Linear(10, 3)

    def forward(self, x):
        _, states = self.rnn(x)
        return self.out(torch.cat([states[0], states[1]], 1))


class Image(nn.Module):
    """A convolution with batch normalisation and pooling; its results include None."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Linear(4, 5)

    def forward(self, Picture):
        h = nn.functional.max_pool2d(torch.clamp(self.norm(self.conv(Picture)), 0, 20), 2)
        return self.out(h.mean((2, 3))), None


class Decoder(nn.Module):
    """A decoder with a tied head, learned positions, a causal mask and its own gelu."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.place = nn.Embedding(20, 8)
        self.queries, self.keys, self.values = (nn.Linear(8, 8) for _ in range(3))
        self.merged, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.head = nn.Linear(8, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, chars):
        x = self.embed(chars) + self.place(torch.arange(chars.shape[1]))
        split = lambda a: a.view(*a.shape[:2], 2, 4).transpose(1, 2)  # noqa: E731
        q, k, v = split(self.queries(x)), split(self.keys(x)), split(self.values(x))
        scores = q @ k.transpose(2, 3) / 2
        seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        chosen = scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v
        h = self.norm(x + self.merged(chosen.transpose(1, 2).flatten(2)))
        gelu = 0.5 * h * (1 + torch.tanh(0.7978845608028654 * (h + 0.044715 * h**3)))
        return {"logits": self.head(gelu)}


class Llama(nn.Module):
    """Attention of two groups of heads with rotary positions, after a root mean square norm."""

    def __init__(self):
        super().__init__()
        self.norm = nn.Parameter(torch.ones(16))
        self.queries = nn.Linear(16, 16, bias=False)
        self.keys, self.values = nn.Linear(16, 8, bias=False), nn.Linear(16, 8, bias=False)
        self.merged = nn.Linear(16, 16, bias=False)

    def forward(self, x):
        batch, time = x.shape[:2]
        h = self.norm * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        speeds = 10000.0 ** (-torch.arange(2, dtype=x.dtype) / 2)
        angles = torch.arange(time, dtype=x.dtype)[:, None] * speeds
        cos, sin = (f(torch.cat([angles, angles], -1)) for f in (torch.cos, torch.sin))

        def turned(a):
            return a * cos + torch.cat([-a[..., 2:], a[..., :2]], -1) * sin

        q = turned(self.queries(h).view(batch, time, 4, 4).transpose(1, 2))
        k = turned(self.keys(h).view(batch, time, 2, 4).transpose(1, 2))
        v = self.values(h).view(batch, time, 2, 4).transpose(1, 2)
        k, v = (
            a[:, :, None].expand(batch, 2, 2, time, 4).reshape(batch, 4, time, 4) for a in (k, v)
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.merged(y.transpose(1, 2).reshape(batch, time, 16))


class Stochastic(nn.Module):
    """A model that drops its whole residual branch at random in training."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x):
        branch = self.inner(x)
        if self.training:
            branch = branch * torch.bernoulli(torch.full((1,), 0.5))
        return x + branch


class Counting(nn.Module):
    """A model whose result has a shape that depends on the data."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 5)

    def forward(self, x):
        return torch.histc(self.out(x), 4)


class Everyday(nn.Module):
    """Operators that modules often have, and that no layer of torch stands for."""

    def __init__(self):
        super().__init__()
        self.inside = nn.utils.parametrizations.weight_norm(nn.Conv1d(6, 8, 3, dilation=2))
        self.slope, self.norm = nn.PReLU(), nn.GroupNorm(2, 8)
        self.each, self.plain = nn.InstanceNorm1d(8, affine=True), nn.LayerNorm(8, bias=False)
        self.around = nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")
        self.temperature = nn.Parameter(torch.ones(1))

    def forward(self, x):
        h = self.norm(self.slope(self.inside(F.pad(x.transpose(1, 2), (4, 0)))))
        h = self.plain(self.each(h).transpose(1, 2))
        q, k = F.normalize(h, dim=-1), F.normalize(F.selu(h), dim=-1)
        scores = torch.einsum("bid,bjd->bij", q, k) * self.temperature.exp()
        mixed = torch.einsum("bij,bjhd->bihd", scores, h.unflatten(-1, (2, 4))).flatten(2)
        image = F.interpolate(self.around(mixed[:, None]), scale_factor=2)
        image = F.interpolate(image, size=(7, 5), mode="bilinear", align_corners=True)
        return torch.addcmul(image, image, F.logsigmoid(image), value=0.5).amin(1)


class Cached(nn.Module):
    """A model that returns a cache with its output if its config says so, as in transformers."""

    def __init__(self):
        super().__init__()
        self.config = type("Config", (), {"use_cache": True})()
        self.out = nn.Linear(6, 5)

    def forward(self, x):
        y = self.out(x)
        return (y, self.config) if self.config.use_cache else y


class Handwritten(nn.Module):
    """Causal attention as users write it, with a lower triangle of ones as a buffer."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.register_buffer("mask", torch.tril(torch.ones(32, 32)).view(1, 1, 32, 32))

    def forward(self, x):
        batch, time, width = x.shape
        q, k, v = (a.view(batch, time, 2, 4).transpose(1, 2) for a in self.qkv(x).split(8, 2))
        scores = (q @ k.transpose(-2, -1)) / 2
        scores = scores.masked_fill(self.mask[:, :, :time, :time] == 0, float("-inf"))
        chosen = F.softmax(scores, -1) @ v
        return self.out(chosen.transpose(1, 2).reshape(batch, time, width))


class Coupling(nn.Module):
    """A block of a flow, which returns its result and the logarithm of the determinant."""

    def __init__(self):
        super().__init__()
        self.hidden, self.scale, self.shift = nn.Linear(3, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x):
        a, b = x.chunk(2, dim=-1)
        h = torch.relu(self.hidden(a))
        s = torch.tanh(self.scale(h))
        return torch.cat([b * torch.exp(s) + self.shift(h), a], -1), s.sum(-1)


class Flow(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Coupling() for _ in range(3)])

    def forward(self, x):
        total = 0
        for block in self.blocks:
            x, log_det = block(x)
            total = total + log_det
        return x, total


class KeyValueBlock(nn.Module):
    """A block with attention that returns its output and its keys, values and weights."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-1, -2) / 2).softmax(-1)
        return x + self.o((weights @ v).transpose(1, 2).flatten(2)), k, v, weights


class Caches(nn.Module):
    """Keys and values of all blocks are returned, but the weights of none."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([KeyValueBlock() for _ in range(2)])

    def forward(self, x):
        x, k, v, _ = self.blocks[0](x)
        x, k_2, v_2, _ = self.blocks[1](x)
        return x, k, v, k_2, v_2


class Weights(Caches):
    """The weights of the last block are returned."""

    def forward(self, x):
        return self.blocks[1](self.blocks[0](x)[0])[::3]


class RecurrentBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.lstm = nn.LayerNorm(4), nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        y, states = self.lstm(self.norm(x))
        return x + y, states


class RecurrentBlocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = RecurrentBlock(), RecurrentBlock()

    def forward(self, x):
        x, (h, c) = self.first(x)
        x, (h_2, c_2) = self.second(x)
        return x, torch.cat([h, h_2]), torch.cat([c, c_2])


class Frozen(nn.Module):
    """A batch norm that stays in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.up, self.norm, self.drop = nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.1)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.drop(self.norm(self.up(x)))


class Shaken(nn.Module):
    """A batch norm, and random numbers that are no dropout."""

    def __init__(self):
        super().__init__()
        self.up, self.norm = nn.Linear(6, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        h = self.norm(self.up(x))
        return h + torch.randn_like(h) if self.training else h


class Interleaved(nn.Module):
    """Rotary positions of pairs of neighbours, with steps that are floats from the start."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(8, 8)
        self.register_buffer("speeds", 100.0 ** (-torch.arange(4) / 4.0))

    def forward(self, x):
        steps = torch.arange(x.shape[1], dtype=x.dtype)
        angles = torch.outer(steps, self.speeds.to(x.dtype))
        a, b = x[..., ::2], x[..., 1::2]
        c, s = angles.cos(), angles.sin()
        return self.out(torch.stack([a * c - b * s, a * s + b * c], -1).flatten(-2))
