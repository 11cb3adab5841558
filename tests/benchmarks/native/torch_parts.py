"""Parts of the torch models: torch's own layers, holding the parameters of a layer of a spec."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_layers import Arrays, fill, linear

Tensors = dict[str, Tensor]


class Model(nn.Module):
    """A model that makes logits; ``output`` is the name of what they are made into."""

    output = "next_chars"

    def predict(self, inputs: Tensors) -> Tensor:
        """What a forward pass gives."""
        return torch.softmax(self(inputs), -1)

    def lose(self, inputs: Tensors, targets: Tensors) -> Tensor:
        """The loss of a batch."""
        logits = self(inputs)
        (target,) = targets.values()
        return F.cross_entropy(logits.flatten(0, -2), target.flatten())


def inside(rows: Tensor, lengths: Tensor) -> Tensor:
    """[batch, time]: where a row has not ended."""
    return torch.arange(rows.shape[1], device=rows.device) < lengths[:, None]


def mean_of(kept: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """The mean of the cross-entropy over what is kept, 0 if that is nothing."""
    aims = target.masked_fill(~kept, -100).flatten()
    total = F.cross_entropy(logits.flatten(0, 1), aims, ignore_index=-100, reduction="sum")
    return total / kept.sum().clamp(min=1)


def part(arrays: Arrays, name: str) -> Arrays:
    """The arrays of one part, under their names in it."""
    start = f"{name}."
    return {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}


def parts(arrays: Arrays, name: str) -> list[Arrays]:
    """The arrays of each of the parts ``NAME.0``, ``NAME.1`` and so on."""
    found = []
    while own := part(arrays, f"{name}.{len(found)}"):
        found.append(own)
    return found


def dense(arrays: Arrays, name: str) -> nn.Linear:
    """A dense layer, with a bias where it has one."""
    own = part(arrays, name)
    return linear(own["W"], own.get("b"))


def embedding(table: np.ndarray) -> nn.Embedding:
    layer = nn.Embedding(*table.shape)
    fill(layer, weight=table)
    return layer


def layer_norm(arrays: Arrays, name: str) -> nn.LayerNorm:
    own = part(arrays, name)
    layer = nn.LayerNorm(len(own["gamma"]))
    fill(layer, weight=own["gamma"], bias=own["beta"])
    return layer


def rms_norm(arrays: Arrays, name: str) -> nn.RMSNorm:
    gamma = part(arrays, name)["gamma"]
    layer = nn.RMSNorm(len(gamma), eps=1e-6)
    fill(layer, weight=gamma)
    return layer


def conv(arrays: Arrays, name: str, padding: int = 0, stride: int = 1) -> nn.Conv2d:
    """A convolution; its kernel is [rows, columns, channels, units] in a spec."""
    own = part(arrays, name)
    weight = own["W"].transpose(3, 2, 0, 1)
    units, channels, kernel, _ = weight.shape
    layer = nn.Conv2d(channels, units, kernel, stride, padding, bias="b" in own)
    fill(layer, weight=weight, **({"bias": own["b"]} if "b" in own else {}))
    return layer


def conv_transpose(arrays: Arrays, name: str, stride: int) -> nn.ConvTranspose2d:
    """The transpose of a convolution; its kernel is [rows, columns, units, channels] in a spec."""
    own = part(arrays, name)
    weight = own["W"].transpose(3, 2, 0, 1)
    channels, units, kernel, _ = weight.shape
    layer = nn.ConvTranspose2d(channels, units, kernel, stride)
    fill(layer, weight=weight, bias=own["b"])
    return layer


def batch_norm(arrays: Arrays, name: str, epsilon: float = 1e-3) -> nn.BatchNorm2d:
    own = part(arrays, name)
    layer = nn.BatchNorm2d(len(own["gamma"]), eps=epsilon, momentum=0.1)
    fill(
        layer,
        weight=own["gamma"],
        bias=own["beta"],
        running_mean=own["moving_mean"],
        running_var=own["moving_variance"],
    )
    return layer


def channels_first(image: Tensor) -> Tensor:
    """[batch, rows, columns, channels] as torch has images: a view, in its format channels_last."""
    return image.permute(0, 3, 1, 2)
