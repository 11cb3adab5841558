"""A small ResNet with channels on axis 1, and the same model with mistakes. The spec is
``resnet``."""

from torch import nn
from torch.nn.functional import conv2d, pad


class Block(nn.Module):
    def __init__(self, width, units, stride):
        super().__init__()
        self.conv_1 = nn.Conv2d(width, units, 3, stride, 1, bias=False)
        self.bn_1, self.bn_2 = nn.BatchNorm2d(units, 1e-3), nn.BatchNorm2d(units, 1e-3)
        self.conv_2 = nn.Conv2d(units, units, 3, 1, 1, bias=False)
        if stride > 1:
            self.short = nn.Conv2d(width, units, 1, stride, bias=False)
            self.bn_3 = nn.BatchNorm2d(units, 1e-3)

    def shortcut(self, x):
        return self.bn_3(self.short(x)) if hasattr(self, "short") else x

    def forward(self, x):
        h = self.bn_1(self.conv_1(x)).relu()
        return self.end(self.shortcut(x) + self.bn_2(self.conv_2(h)))

    def end(self, x):
        return x.relu()


class Right(nn.Module):
    block = Block

    def __init__(self, width=4, classes=10):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width, 1e-3)
        self.first = nn.ModuleList([self.block(width, width, 1) for _ in range(2)])
        self.down_2 = self.block(width, 2 * width, 2)
        self.second = nn.ModuleList([self.block(2 * width, 2 * width, 1)])
        self.down_3 = self.block(2 * width, 4 * width, 2)
        self.third = nn.ModuleList([self.block(4 * width, 4 * width, 1)])
        self.fc = nn.Linear(4 * width, classes)
        self.plant()

    def plant(self):
        pass

    def pool(self, x):
        return x.mean((2, 3))

    def forward(self, image):
        x = self.bn(self.conv(image.permute(0, 3, 1, 2))).relu()
        for block in (*self.first, self.down_2, *self.second, self.down_3, *self.third):
            x = block(x)
        return self.fc(self.pool(x))


class OneEpsilon(Right):
    def plant(self):
        self.second[0].bn_1.eps = 1e-5


class MaximumPool(Right):
    def pool(self, x):
        return x.amax((2, 3))


class NoLastRelu(Right):
    def plant(self):
        self.first[1].end = lambda x: x


class StrideInSecond(Right):
    def plant(self):
        self.down_2.conv_1.stride, self.down_2.conv_2.stride = (1, 1), (2, 2)


class PaddingOfKeras(Right):
    """Keras pads strided convolutions with "same" only at the end."""

    def plant(self):
        conv = self.down_2.conv_1
        conv.padding = (0, 0)
        conv.register_forward_pre_hook(lambda _, given: pad(given[0], (0, 1, 0, 1)))


class FlippedKernel(Right):
    def plant(self):
        conv = self.conv
        conv.forward = lambda x: conv2d(x, conv.weight.flip(2, 3), None, 1, 1)


class BatchStatistics(Right):
    def plant(self):
        norm = self.third[0].bn_2
        norm.forward = lambda x: nn.functional.batch_norm(
            x, None, None, norm.weight, norm.bias, True, 0.1, norm.eps
        )


class ShortcutWithoutNorm(Right):
    def plant(self):
        self.down_3.shortcut = lambda x: self.down_3.short(x)
