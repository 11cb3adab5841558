"""A stack of recurrent layers that is one module of the user's, and several layers of the spec."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from users_models import checked, model_file

from harness.errors import UsageError
from harness.runtime.own_model.service import OwnModelService

SPEC = """\
model: stacked
summary: Recurrent layers, one on the other.
source: A test.
sizes: {features: 3, units: 4, outcomes: 2}
inputs:
  x: {shape: [batch, time, features]}
layers:
  low: {layer: KIND, units: units}
  mid: {layer: KIND, units: units}
  high: {layer: KIND, units: units}
  out: {layer: dense, units: outcomes}
equations: y = out(high(mid(low(x))))
targets:
  target: {shape: [batch, time, outcomes]}
loss: mean(squared_error(y, target))
"""
NET = """\
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.KIND(3, 4, num_layers=3, batch_first=True, bidirectional=BOTH)
        self.out = torch.nn.Linear(8 if BOTH else 4, 2)

    def forward(self, x):
        return self.out(self.rnn(x)[0])
"""
STACKS = {
    "lstm": ("LSTM", False, ["mid.*_l0=rnn.*_l1", "high.*_l0=rnn.*_l2"]),
    "simple_rnn_two_biases": ("RNN", False, ["mid.*_l0=rnn.*_l1", "high.*_l0=rnn.*_l2"]),
    "bidirectional_gru_reset_after": (
        *("GRU", True),
        ["mid.*_l0*=rnn.*_l1*", "high.*_l0*=rnn.*_l2*"],
    ),
}


@pytest.mark.parametrize("definition", STACKS)
def test_the_rules_of_a_stack_are_told_and_bring_it_together(
    torch_service: OwnModelService, tmp_path: Path, definition: str
) -> None:
    kind, both, rules = STACKS[definition]
    spec = model_file(tmp_path, SPEC.replace("KIND", definition), "stacked.yaml")
    text = NET.replace("KIND", kind).replace("BOTH", str(both))
    model = f"{model_file(tmp_path, text)}:Net"
    with pytest.raises(UsageError) as refused:
        checked(torch_service, spec, model, "float64")
    told = re.findall(r"--map ('[^']*'|\S+)", str(refused.value))
    found = [word for rule in told for word in shlex.split(rule)]
    assert found == ["low=rnn", *rules]
    result = checked(torch_service, spec, model, "float64", maps=tuple(found))
    assert {f.verdict for f in result.findings} == {"agree"}
