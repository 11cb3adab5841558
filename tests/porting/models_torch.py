"""Torch modules that the tests port."""

import torch
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


class Counting(nn.Module):
    """A model whose result has a shape that depends on the data."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 5)

    def forward(self, x):
        return torch.histc(self.out(x), 4)
