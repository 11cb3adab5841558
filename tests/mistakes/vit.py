"""A small vision transformer, and the same model with mistakes."""

import torch
from torch import nn
from torch.nn.functional import gelu


class Attention(nn.Module):
    axis = -1

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def split(self, x):
        rows, steps, width = x.shape
        parts = self.qkv(x).reshape(rows, steps, 3, self.heads, width // self.heads)
        return parts.permute(2, 0, 3, 1, 4)

    def forward(self, x):
        q, k, v = self.split(x)
        scores = (q @ k.transpose(-2, -1) * self.scale).softmax(self.axis)
        return self.proj((scores @ v).transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attn = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def act(self, x):
        return gelu(x)

    def mlp(self, x):
        return self.down(self.act(self.up(x)))

    def forward(self, x):
        x = x + self.attn(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class Right(nn.Module):
    def __init__(self, width=8, heads=2):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.pos = nn.Parameter(torch.randn(1, 7, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(3))
        self.norm = nn.LayerNorm(width, 1e-6)
        self.head = nn.Linear(width, 5)
        self.plant()

    def plant(self):
        pass

    def flatten(self, x):
        return x.flatten(2).transpose(1, 2)

    def place(self, x):
        return torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos

    def pool(self, x):
        return x[:, 0]

    def forward(self, image):
        x = self.place(self.flatten(self.patch(image)))
        for block in self.blocks:
            x = block(x)
        return self.head(self.pool(self.norm(x)))


class Unscaled(Right):
    def plant(self):
        self.blocks[1].attn.scale = 1.0


class SoftmaxOverQueries(Right):
    def plant(self):
        for block in self.blocks:
            block.attn.axis = -2


class HeadsFirst(Right):
    """The weights of the heads are split before those of query, key and value."""

    def plant(self):
        attn = self.blocks[0].attn
        attn.split = lambda x: (
            attn.qkv(x).reshape(*x.shape[:2], attn.heads, 3, -1).permute(3, 0, 2, 1, 4)
        )


class FlattensColumns(Right):
    def flatten(self, x):
        return x.transpose(2, 3).flatten(2).transpose(1, 2)


class FlattenWithoutTranspose(Right):
    def flatten(self, x):
        return x.reshape(len(x), -1, x.shape[1])


class ClassTokenLast(Right):
    def place(self, x):
        return torch.cat([x, self.cls.expand(len(x), -1, -1)], 1) + self.pos


class PositionsOfPatches(Right):
    """The class token has no position."""

    def place(self, x):
        return torch.cat([self.cls.expand(len(x), -1, -1), x + self.pos[:, 1:]], 1)


class PositionsFromOne(Right):
    def place(self, x):
        return torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos.roll(-1, 1)


class MeanOverPatches(Right):
    def pool(self, x):
        return x.mean(1)


class PostNorm(Right):
    def plant(self):
        block = self.blocks[0]

        def forward(x):
            x = block.norm_1(x + block.attn(x))
            return block.norm_2(x + block.mlp(x))

        block.forward = forward


class BlockSkipped(Right):
    def plant(self):
        self.blocks[1].forward = lambda x: x


class FirstBlockThrice(Right):
    def plant(self):
        for block in self.blocks[1:]:
            block.forward = self.blocks[0].forward


class GeluTanh(Right):
    def plant(self):
        for block in self.blocks:
            block.act = lambda x: gelu(x, approximate="tanh")


class EveryEpsilon(Right):
    def plant(self):
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-5


class NoLastNorm(Right):
    def plant(self):
        self.norm.forward = lambda x: x


class TransposedProjection(Right):
    def plant(self):
        proj = self.blocks[2].attn.proj
        proj.forward = lambda x: x @ proj.weight + proj.bias


class NoResidual(Right):
    def plant(self):
        block = self.blocks[1]

        def forward(x):
            x = block.attn(block.norm_1(x))
            return x + block.mlp(block.norm_2(x))

        block.forward = forward
