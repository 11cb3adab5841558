"""The first wrong module of a user's model: which later values prove that a value is right."""

from __future__ import annotations

from pathlib import Path

import pytest
from users_models import checked, model_file
from wording import Wording

from harness.runtime.own_model.service import OwnModelService

SPEC = """\
model: branches
summary: A branch that is almost 0, and a branch with normalised weights.
source: A test.
sizes: {features: 6, units: 4}
inputs:
  x: {shape: [batch, time, features]}
parameters:
  direction: {shape: [units, units], init: {normal: {std: 1}}}
layers:
  one: {layer: dense, units: units}
  two: {layer: dense, units: units}
  skip: {layer: dense, units: units}
  out: {layer: dense, units: units}
  norm_1: {layer: layer_norm, epsilon: 1.0e-5}
  norm_2: {layer: layer_norm, epsilon: 1.0e-5}
  norm_3: {layer: layer_norm, epsilon: 1.0e-5}
  norm_4: {layer: layer_norm, epsilon: 1.0e-5}
  norm_5: {layer: layer_norm, epsilon: 1.0e-5}
equations: |
  h = gelu(one(x))
  z = h + two(1e-20 * h)
  w = direction / sum(direction ** 2) ** 0.5
  y = out(norm_5(norm_4(norm_3(norm_2(norm_1(skip(x) + tanh(z @ w)))))))
outputs: [y]
"""
NET = """\
import torch
from torch import nn
from torch.nn.functional import gelu


class Unit(nn.Module):
    def forward(self, w):
        return w / w.square().sum().sqrt()


class Scaled(nn.Module):
    def __init__(self, units):
        super().__init__()
        self.direction, self.unit = nn.Parameter(torch.randn(units, units)), Unit()

    def forward(self, x):
        return x @ self.unit(self.direction)


class Net(nn.Module):
    approximate = "none"

    def __init__(self, features=6, units=4):
        super().__init__()
        self.one, self.two = nn.Linear(features, units), nn.Linear(units, units)
        self.skip, self.out = nn.Linear(features, units), nn.Linear(units, units)
        self.scaled, self.tanh = Scaled(units), nn.Tanh()
        self.norms = nn.ModuleList(nn.LayerNorm(units) for _ in range(5))
        self.plant()

    def plant(self):
        pass

    def forward(self, x):
        h = gelu(self.one(x), approximate=self.approximate)
        y = self.tanh(self.scaled(h + self.two(1e-20 * h)))
        y = self.skip(x) + y
        for norm in self.norms:
            y = norm(y)
        return self.out(y)


class GeluTanh(Net):
    approximate = "tanh"


class Relu(Net):
    def plant(self):
        self.tanh = nn.ReLU()


class Epsilon(Net):
    def plant(self):
        self.norms[1].eps = 1e-3


class Epsilons(Net):
    def plant(self):
        self.norms[2].eps = self.norms[4].eps = 1e-3
"""
RULES = ["own.direction=scaled.direction"]
RULES += [f"norm_{n + 1}=norms.{n}" for n in range(5)]
# The planted mistake -> texts that name it.
PLANTED = {
    "GeluTanh": "between one (right) and two ... gelu_tanh replaces gelu",
    "Relu": "between scaled (right) and norms.0 ... through tanh:",
    "Epsilon": "wrong module: norms.1 ... epsilon of norm_2 is 0.001",
    "Epsilons": "wrong module: norms.2 ... epsilon of norm_3 is 0.001",
}


def location(service: OwnModelService, folder: Path, name: str) -> str:
    spec, file = model_file(folder, SPEC, "branches.yaml"), model_file(folder, NET)
    checks = ("repeatability", "inference")
    result = checked(service, spec, f"{file}:{name}", "float64", maps=RULES, checks=checks)
    assert result.verdict == ("agree" if name == "Net" else "differ")
    return result.location


def test_a_model_with_branches_agrees(torch_service: OwnModelService, tmp_path: Path) -> None:
    assert not location(torch_service, tmp_path, "Net")


@pytest.mark.parametrize("name", PLANTED)
def test_a_value_is_right_only_if_a_later_value_shows_it(
    torch_service: OwnModelService, tmp_path: Path, name: str, wording: Wording
) -> None:
    wording.line(location(torch_service, tmp_path, name), PLANTED[name])
