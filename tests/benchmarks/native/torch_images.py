"""The torch models of images: lenet, resnet, resnet_bottleneck, resnet50 and unet.

Weights and images are in torch's format channels_last, which its convolutions on a CPU prefer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_layers import Arrays, linear
from torch_parts import (
    Model,
    Tensors,
    batch_norm,
    channels_first,
    conv,
    conv_transpose,
    dense,
    part,
    parts,
)

Sizes = Mapping[str, int]


class Lenet(Model):
    """Two convolutions with pools of means, and three dense layers."""

    output = "digit"

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.conv_1, self.conv_2 = conv(arrays, "conv_1"), conv(arrays, "conv_2")
        # Its rows are those of torch's order of an image: channels, rows, columns.
        weight, side = arrays["dense_1.W"], sizes["side"]
        rows = weight.reshape(side, side, -1, weight.shape[1]).transpose(2, 0, 1, 3)
        self.dense_1 = linear(rows.reshape(weight.shape), arrays["dense_1.b"])
        self.dense_2, self.out = dense(arrays, "dense_2"), dense(arrays, "out")

    def forward(self, inputs: Tensors) -> Tensor:
        x = channels_first(inputs["image"])
        x = F.avg_pool2d(torch.tanh(self.conv_1(x)), 2)
        x = F.avg_pool2d(torch.tanh(self.conv_2(x)), 2).flatten(1)
        return self.out(torch.tanh(self.dense_2(torch.tanh(self.dense_1(x)))))


class Basic(nn.Module):
    """Two normalised convolutions beside what goes by, which a stride makes smaller."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        stride = 2 if "short.W" in arrays else 1
        self.conv_1 = conv(arrays, "conv_1", padding=1, stride=stride)
        self.conv_2 = conv(arrays, "conv_2", padding=1)
        self.norm_1, self.norm_2 = batch_norm(arrays, "norm_1"), batch_norm(arrays, "norm_2")
        self.short: nn.Module = nn.Identity()
        if stride == 2:
            self.short = nn.Sequential(
                conv(arrays, "short", stride=stride), batch_norm(arrays, "norm_3")
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_2(self.conv_2(F.relu(self.norm_1(self.conv_1(x)))))
        return F.relu(y + self.short(x))


class Bottleneck(nn.Module):
    """Three normalised convolutions, wide, narrow and wide, beside what goes by."""

    def __init__(self, arrays: Arrays, stride: int = 1) -> None:
        super().__init__()
        self.conv_1 = conv(arrays, "conv_1", stride=stride)
        self.conv_2, self.conv_3 = conv(arrays, "conv_2", padding=1), conv(arrays, "conv_3")
        self.norm_1, self.norm_2, self.norm_3 = (batch_norm(arrays, f"norm_{n}") for n in (1, 2, 3))
        self.short: nn.Module = nn.Identity()
        if "short.W" in arrays:
            self.short = nn.Sequential(
                conv(arrays, "short", stride=stride), batch_norm(arrays, "norm_4")
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm_1(self.conv_1(x)))
        y = self.norm_3(self.conv_3(F.relu(self.norm_2(self.conv_2(y)))))
        return F.relu(y + self.short(x))


class Resnet(Model):
    """Residual blocks in three stages."""

    output = "kind"

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.conv, self.norm = conv(arrays, "conv", padding=1), batch_norm(arrays, "norm")
        self.stages = nn.Sequential(*self.blocks(arrays))
        self.out = dense(arrays, "out")

    def blocks(self, arrays: Arrays) -> list[nn.Module]:
        """All blocks in their order."""
        first, second, third = (parts(arrays, name) for name in ("first", "second", "third"))
        down_2, down_3 = ([part(arrays, name)] for name in ("down_2", "down_3"))
        return [Basic(own) for own in (*first, *down_2, *second, *down_3, *third)]

    def forward(self, inputs: Tensors) -> Tensor:
        x = F.relu(self.norm(self.conv(channels_first(inputs["image"]))))
        return self.out(self.stages(x).mean((2, 3)))


class ResnetBottleneck(Resnet):
    """The same of bottleneck blocks."""

    def blocks(self, arrays: Arrays) -> list[nn.Module]:
        found: list[nn.Module] = []
        for first, more, stride in (("wide_1", "first", 1), ("down_2", "second", 2)):
            found.append(Bottleneck(part(arrays, first), stride))
            found += [Bottleneck(own) for own in parts(arrays, more)]
        found.append(Bottleneck(part(arrays, "down_3"), 2))
        return found + [Bottleneck(own) for own in parts(arrays, "third")]


class Bottleneck50(nn.Module):
    """The block of torchvision's ResNet-50, whose stride is in the middle."""

    def __init__(self, arrays: Arrays, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv3 = conv(arrays, "conv1"), conv(arrays, "conv3")
        self.conv2 = conv(arrays, "conv2", padding=1, stride=stride)
        self.bn1, self.bn2, self.bn3 = (batch_norm(arrays, f"bn{n}", 1e-5) for n in (1, 2, 3))
        self.short: nn.Module = nn.Identity()
        if "downsample_0.W" in arrays:
            self.short = nn.Sequential(
                conv(arrays, "downsample_0", stride=stride),
                batch_norm(arrays, "downsample_1", 1e-5),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(y)) + self.short(x))


class Resnet50(Model):
    """torchvision's ResNet-50."""

    output = "y"

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.conv1 = conv(arrays, "conv1", padding=3, stride=2)
        self.bn1 = batch_norm(arrays, "bn1", 1e-5)
        blocks: list[nn.Module] = []
        for stage in (1, 2, 3, 4):
            blocks.append(Bottleneck50(part(arrays, f"layer{stage}_0"), 1 if stage == 1 else 2))
            blocks += [Bottleneck50(own, 1) for own in parts(arrays, f"layer{stage}_1")]
        self.blocks, self.fc = nn.Sequential(*blocks), dense(arrays, "fc")

    def predict(self, inputs: Tensors) -> Tensor:
        return self(inputs)

    def forward(self, inputs: Tensors) -> Tensor:
        x = inputs["x"].contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.blocks(x).mean((2, 3)))


class Twice(nn.Module):
    """Two convolutions that keep the size."""

    def __init__(self, arrays: Arrays, name: str) -> None:
        super().__init__()
        own = part(arrays, name)
        self.first, self.second = (conv(own, n, padding=1) for n in ("first", "second"))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))))


class Unet(Model):
    """An image made smaller and larger again, beside what it was on the way."""

    output = "label"

    def __init__(self, arrays: Arrays, sizes: Sizes) -> None:
        super().__init__()
        self.down_1, self.down_2, self.bottom, self.up_2, self.up_1 = (
            Twice(arrays, name) for name in ("down_1", "down_2", "bottom", "up_2", "up_1")
        )
        self.grow_2, self.grow_1 = (conv_transpose(arrays, f"grow_{n}", 2) for n in (2, 1))
        self.out = conv(arrays, "out")

    def forward(self, inputs: Tensors) -> Tensor:
        whole = self.down_1(channels_first(inputs["image"]))
        half = self.down_2(F.max_pool2d(whole, 2))
        low = self.bottom(F.max_pool2d(half, 2))
        wide = self.up_2(torch.cat((half, self.grow_2(low)), 1))
        logits = self.out(self.up_1(torch.cat((whole, self.grow_1(wide)), 1)))
        return logits.permute(0, 2, 3, 1)
