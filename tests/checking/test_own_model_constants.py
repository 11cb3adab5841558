"""Constants of a spec as buffers of a user's model."""

from __future__ import annotations

from pathlib import Path

import pytest
from users_models import checked, model_file

from harness.checking.own_model.against import parse_against
from harness.language.model import load_spec
from harness.program.serial import encode
from harness.runtime.own_model.service import OwnModelService

SPEC = """\
model: turned
summary: An order and frequencies that are not trained, beside moving statistics.
source: A test.
sizes: {width: 3}
inputs:
  x: {shape: [batch, width]}
constants:
  freq: {shape: [width]}
  two: {shape: [], value: 2}
  order: {shape: [width], index: width}
layers:
  norm: {layer: batch_norm, epsilon: 0.00001, momentum: 0.9}
  out: {layer: dense, units: 4}
equations: |
  y = two * out(norm(take(x, order, axis=-1) * freq))
outputs: [y]
"""
NET = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.register_buffer("freq", torch.ones(width))
        self.register_buffer("order", torch.arange(width))
        self.norm = nn.BatchNorm1d(width)
        self.out = nn.Linear(width, 4)

    def forward(self, x):
        return 2 * self.out(self.norm(x[:, self.order] * self.freq))


class Other(Net):
    def forward(self, x):
        return 2 * self.out(self.norm(x[:, self.order] * self.freq.abs()))
"""
RULES = ("own.freq=freq", "own.order=order")


@pytest.mark.parametrize(("name", "verdict"), [("Net", "agree"), ("Other", "differ")])
def test_buffers_get_the_constants(
    torch_service: OwnModelService, tmp_path: Path, name: str, verdict: str
) -> None:
    spec, file = model_file(tmp_path, SPEC, "turned.yaml"), model_file(tmp_path, NET)
    result = checked(torch_service, spec, f"{file}:{name}", "float64", maps=RULES)
    found = {f.check: f for f in result.findings}
    assert found["inference"].verdict == verdict
    # torch's BatchNorm updates its variance with that of a sample; the mean is the same.
    wrong = [d.name for d in found["statistics"].deviations if not d.agrees]
    assert wrong == ["statistics.norm.moving_variance"] or verdict == "differ"


def test_weights_of_a_model_include_its_constants(
    torch_service: OwnModelService, tmp_path: Path
) -> None:
    spec = load_spec(str(model_file(tmp_path, SPEC, "turned.yaml")))
    place = parse_against(f"{model_file(tmp_path, NET)}:Net", []).place()
    training, inference = (encode(spec.program(mode)) for mode in ("training", "inference"))
    torch_service.attach(
        **place, training=training, inference=inference, dtype="float32", device="cpu", maps=RULES
    )
    read = torch_service.read_weights()["statistics"]
    assert {*read} == {"own.freq", "own.order", "norm.moving_mean", "norm.moving_variance"}
    assert read["own.order"].tolist() == [0, 1, 2]
