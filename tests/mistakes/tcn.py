"""A temporal convolutional network, and the same model with mistakes."""

import torch
from torch import nn
from torch.nn.functional import pad
from torch.nn.utils.parametrizations import weight_norm


class Block(nn.Module):
    def __init__(self, width, units, dilation):
        super().__init__()
        self.chomp = 2 * dilation
        self.conv_1 = weight_norm(nn.Conv1d(width, units, 3, padding=self.chomp, dilation=dilation))
        self.conv_2 = weight_norm(nn.Conv1d(units, units, 3, padding=self.chomp, dilation=dilation))
        self.drop = nn.Dropout(0.2)
        if width != units:
            self.down = nn.Conv1d(width, units, 1)

    def cut(self, x):
        return x[..., : -self.chomp]

    def skip(self, x):
        return self.down(x) if hasattr(self, "down") else x

    def join(self, x, y):
        return torch.relu(y + self.skip(x))

    def forward(self, x):
        y = self.drop(torch.relu(self.cut(self.conv_1(x))))
        return self.join(x, self.drop(torch.relu(self.cut(self.conv_2(y)))))


class Right(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(3, 5, 1), Block(5, 5, 2), Block(5, 7, 4)])
        self.head = nn.Linear(7, 4)
        self.plant()

    def plant(self):
        pass

    def pool(self, x):
        return x[..., -1]

    def forward(self, x):
        x = x.transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.pool(x))


class CutsStart(Right):
    def plant(self):
        for block in self.blocks:
            block.cut = lambda x, size=block.chomp: x[..., size:]


class PadsEnd(Right):
    """The convolution pads the end, so that each step sees the future."""

    def plant(self):
        for block in self.blocks:
            block.cut = lambda x: x
            for conv in (block.conv_1, block.conv_2):
                conv.padding = (0,)
                conv.register_forward_pre_hook(
                    lambda _, given, size=block.chomp: pad(given[0], (0, size))
                )


class PadsBoth(Right):
    def plant(self):
        block = self.blocks[1]
        half = block.chomp // 2
        block.cut = lambda x: x[..., half:-half]


class NoResidual(Right):
    def plant(self):
        self.blocks[1].join = lambda _, y: torch.relu(y)


class NoLastRelu(Right):
    def plant(self):
        block = self.blocks[0]
        block.join = lambda x, y: y + block.skip(x)


class DilationOne(Right):
    def plant(self):
        block = self.blocks[2]
        for conv in (block.conv_1, block.conv_2):
            conv.dilation, conv.padding = (1,), (2,)
        block.cut = lambda x: x[..., :-2]


class MeanOverTime(Right):
    def pool(self, x):
        return x.mean(-1)


class FirstStep(Right):
    def pool(self, x):
        return x[..., 0]


class LeakyRelu(Right):
    def plant(self):
        block = self.blocks[1]

        def forward(x):
            y = torch.nn.functional.leaky_relu(block.cut(block.conv_1(x)))
            return block.join(x, torch.relu(block.cut(block.conv_2(y))))

        block.forward = forward


class NoWeightNorm(Right):
    """The norm's direction is used as the weight."""

    def plant(self):
        conv = self.blocks[0].conv_2
        conv.forward = lambda x: nn.functional.conv1d(
            x, conv.parametrizations.weight.original1, conv.bias, 1, conv.padding, conv.dilation
        )
