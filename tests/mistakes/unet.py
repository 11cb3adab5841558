"""A U-Net of two levels, and the same model with mistakes."""

import torch
from torch import nn
from torch.nn.functional import gelu, interpolate


class Double(nn.Module):
    approximate = "none"

    def __init__(self, width, units):
        super().__init__()
        self.conv_1 = nn.Conv2d(width, units, 3, padding=1)
        self.bn_1 = nn.BatchNorm2d(units)
        self.conv_2 = nn.Conv2d(units, units, 3, padding=1)
        self.bn_2 = nn.BatchNorm2d(units)

    def act(self, x):
        return gelu(x, approximate=self.approximate)

    def forward(self, x):
        x = self.act(self.bn_1(self.conv_1(x)))
        return self.act(self.bn_2(self.conv_2(x)))


class Right(nn.Module):
    block = Double

    def __init__(self):
        super().__init__()
        self.enc_1, self.enc_2 = self.block(3, 4), self.block(4, 8)
        self.pool = nn.MaxPool2d(2)
        self.mid = self.block(8, 16)
        self.up_2, self.up_1 = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 4, 1)
        self.dec_2, self.dec_1 = self.block(16, 8), self.block(8, 4)
        self.head = nn.Conv2d(4, 2, 1)
        self.plant()

    def plant(self):
        pass

    def enlarge(self, x):
        return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    def join(self, skip, x):
        return torch.cat([skip, x], 1)

    def forward(self, image):
        a = self.enc_1(image)
        b = self.enc_2(self.pool(a))
        x = self.mid(self.pool(b))
        x = self.dec_2(self.join(b, self.up_2(self.enlarge(x))))
        return self.head(self.dec_1(self.join(a, self.up_1(self.enlarge(x)))))


class GeluTanh(Right):
    def plant(self):
        for block in (self.enc_1, self.enc_2, self.mid, self.dec_2, self.dec_1):
            block.approximate = "tanh"


class OneEpsilon(Right):
    def plant(self):
        self.dec_2.bn_2.eps = 1e-3


class EveryEpsilon(Right):
    def plant(self):
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 1e-3


class SkipLast(Right):
    def join(self, skip, x):
        return torch.cat([x, skip], 1)


class AlignCorners(Right):
    def enlarge(self, x):
        return interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class Nearest(Right):
    def enlarge(self, x):
        return interpolate(x, scale_factor=2, mode="nearest")


class MeanPool(Right):
    def plant(self):
        self.pool = nn.AvgPool2d(2)


class ActivationBeforeNorm(Right):
    def plant(self):
        block = self.mid
        block.forward = lambda x: block.bn_2(
            block.act(block.conv_2(block.act(block.bn_1(block.conv_1(x)))))
        )


class Reflects(Right):
    def plant(self):
        self.enc_2.conv_2.padding_mode = "reflect"
        self.enc_2.conv_2._reversed_padding_repeated_twice = [1, 1, 1, 1]
