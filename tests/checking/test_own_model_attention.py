"""Attention of a user's torch module, and rules that would bring two sides together wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
from users_models import checked, model_file
from wording import Wording

from harness.errors import UsageError
from harness.runtime.own_model.service import OwnModelService

ATTENTION = """
model: attending
summary: Attention and a square product.
source: A test.
sizes: {width: 6}
inputs:
  x: {shape: [batch, time, width]}
layers:
  attend: {layer: self_attention, heads: 2, head: 3}
  one: {layer: dense, bias: false, units: width}
equations: |
  y = one(attend(x))
"""
ATTENDING = """
import torch


class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mha = torch.nn.MultiheadAttention(width, 2, batch_first=True)
        self.last = torch.nn.Linear(width, width, bias=False)

    def forward(self, x):
        return self.last(self.mha(x, x, x, need_weights=False)[0])
"""


def test_torchs_own_attention_is_known_by_its_names(
    torch_service: OwnModelService, tmp_path: Path, wording: Wording
) -> None:
    spec, file = model_file(tmp_path, ATTENTION, "attending.yaml"), model_file(tmp_path, ATTENDING)
    with wording.raises(UsageError, "--map attend=mha"):
        checked(torch_service, spec, f"{file}:Net", "float64")
    rules = ["attend=mha", "one=last"]
    assert checked(torch_service, spec, f"{file}:Net", "float64", maps=rules).verdict == "agree"


TWO = """
model: two
summary: Two products, the second of another size.
source: A test.
sizes: {width: 6, units: 4}
inputs:
  x: {shape: [batch, width]}
layers:
  one: {layer: dense, bias: false, units: width}
  two: {layer: dense, bias: false, units: units}
  three: {layer: dense, bias: false, units: units}
equations: |
  y = two(one(x)) + three(x)
"""
FREE = """
import torch


class Net(torch.nn.Module):
    def __init__(self, width, units):
        super().__init__()
        self.square = torch.nn.Parameter(torch.ones(width, width))
        self.only = torch.nn.Parameter(torch.ones(units, width))
"""


def test_no_rule_is_offered_that_may_be_wrong(
    torch_service: OwnModelService, tmp_path: Path, wording: Wording
) -> None:
    """A square array may lie either way, and one array is not two parameters."""
    spec, file = model_file(tmp_path, TWO, "two.yaml"), model_file(tmp_path, FREE)
    with pytest.raises(UsageError) as caught:
        checked(torch_service, spec, f"{file}:Net", "float64")
    wording.line(caught.value, "--map OURS=THEIRS")
    with pytest.raises(UsageError, match=r"--map three\.W=only\.T$"):
        checked(torch_service, spec, f"{file}:Net", "float64", maps=["two.W=square[:, :4]"])


ATTENDED = """\
model: attended
summary: Attention, and nothing else.
source: A test.
sizes: {width: 6}
inputs:
  x: {shape: [batch, time, width]}
layers:
  attend: {layer: causal_attention, heads: 2, head: 3}
equations: y = attend(x)
"""
ATTENDS = """\
import torch
from torch import nn


class Net(nn.Module):
    scale, seen = 3**-0.5, 0

    def __init__(self, width=6):
        super().__init__()
        for name in "qkvo":
            setattr(self, name, nn.Linear(width, width))

    def forward(self, x):
        q, k, v = (getattr(self, n)(x).unflatten(-1, (2, 3)).transpose(1, 2) for n in "qkv")
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril(self.seen)
        scores = (q @ k.transpose(-1, -2) * self.scale).masked_fill(~mask, -1e30)
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class NoScale(Net):
    scale = 1


class AndTheNext(Net):
    seen = 1


class NotItself(Net):
    seen = -1
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NoScale", "The result is right if the division by a constant is omitted in "),
        ("AndTheNext", "The result is right if the comparison includes one value more in "),
        ("NotItself", "The result is right if the comparison includes one value less in "),
    ],
)
def test_a_mask_that_is_off_by_one_and_a_scale_that_lacks_are_told(
    torch_service: OwnModelService, tmp_path: Path, name: str, words: str
) -> None:
    spec, file = model_file(tmp_path, ATTENDED, "attended.yaml"), model_file(tmp_path, ATTENDS)
    maps = [
        f"attend.{tensor}_{n}={n}.{own}"
        for n in "qkvo"
        for tensor, own in (("W", "weight.T"), ("b", "bias"))
    ]
    right = checked(torch_service, spec, f"{file}:Net", "float64", maps=maps)
    assert right.verdict == "agree"
    result = checked(torch_service, spec, f"{file}:{name}", "float64", maps=maps)
    assert words + "specs/layers/causal_attention.yaml:2" in result.location


TURNED = """\
model: turned
summary: Positions by rotation.
source: A test.
sizes: {half: 3}
inputs:
  x: {shape: [batch, time, 2 * half]}
layers:
  one: {layer: dense, units: 2 * half}
equations: y = rotary(one(x), half=half)
"""
TURNS = """\
import torch


class Net(torch.nn.Module):
    def __init__(self, half=3):
        super().__init__()
        self.one = torch.nn.Linear(2 * half, 2 * half)

    def forward(self, x):
        angles = torch.outer(torch.arange(x.shape[1]), 1e4 ** -(torch.arange(3) / 3).to(x.dtype))
        pairs = torch.view_as_complex(self.one(x).unflatten(-1, (-1, 2)))
        turned = pairs * torch.polar(torch.ones_like(angles), angles)
        return torch.view_as_real(turned).flatten(-2)
"""


def test_rotary_positions_of_neighbours_are_told_from_those_of_halves(
    torch_service: OwnModelService, tmp_path: Path, wording: Wording
) -> None:
    file = model_file(tmp_path, TURNS)
    spec = model_file(tmp_path, TURNED, "turned.yaml")
    result = checked(torch_service, spec, f"{file}:Net", "float64")
    wording.line(result.location, "rotary_interleaved")
    spec = model_file(tmp_path, TURNED.replace("rotary(", "rotary_interleaved("), "neighbours.yaml")
    assert checked(torch_service, spec, f"{file}:Net", "float64").verdict == "agree"
