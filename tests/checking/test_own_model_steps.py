"""Optimizer steps of a user's own model, with its framework's own optimizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from users_models import checked, model_file

from harness.results.cell import CellResult
from harness.runtime.own_model.service import OwnModelService

SPEC = """\
model: small
summary: Batch norm, dropout and two products.
source: A test.
inputs: {x: {shape: [batch, 6]}}
layers:
  norm: {layer: sample_batch_norm}
  a: {layer: dense, units: 8}
  drop: {layer: dropout, keep: 0.75}
  b: {layer: dense, units: 5}
equations: |
  y = b(drop(relu(a(norm(x)))))
outputs: [y]
targets: {target: {shape: [batch], index: 5}}
loss: mean(sparse_cross_entropy(y, target))
"""
NET = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.a, self.b = nn.BatchNorm1d(6), nn.Linear(6, 8), nn.Linear(8, 5)
        self.drop = nn.Dropout(0.25)

    def forward(self, x):
        return self.b(self.drop(torch.relu(self.a(self.norm(x)))))
"""


# In training mode, the outputs are right and the gradients are 1% too large.
STEEP = (
    NET.replace("        return self.b(", "        y = self.b(")
    + """\
        return y + 0.01 * (y - y.detach()) if self.training else y
"""
)


def steps_of(
    service: OwnModelService, folder: Path, source: str, dtype: str = "float64"
) -> CellResult:
    spec = model_file(folder, SPEC, "small.yaml")
    file = model_file(folder, source, f"net_{len(list(folder.iterdir()))}.py")
    return checked(service, spec, f"{file}:Net", dtype, checks=("cotangents", "training*"))


def verdicts(result: CellResult) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in result.findings}


def test_three_steps_of_torchs_own_optimizers_are_compared(
    torch_service: OwnModelService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = steps_of(torch_service, tmp_path, NET)
    names = ("cotangent-gradients", "training-sgd", "training")
    assert verdicts(right) == dict.fromkeys(names, "agree")
    # Three steps of six weights.
    assert [f.comparisons for f in right.findings[1:]] == [18, 18]
    narrow = steps_of(torch_service, tmp_path, NET, "float32")
    assert verdicts(narrow) == dict.fromkeys(names[:2], "agree")

    steep = verdicts(steps_of(torch_service, tmp_path, STEEP))
    assert steep == {**dict.fromkeys(names, "differ"), "cotangent-gradients": "agree"}

    claim = torch_service.served.claim_optimizer

    def wrong_epsilon(rule: Any) -> Any:
        own = claim(rule)
        arguments = {n: 2 * a if n == "eps" else a for n, a in own.arguments.items()}
        return replace(own, arguments=arguments)

    monkeypatch.setattr(torch_service.served, "claim_optimizer", wrong_epsilon)
    wrong = verdicts(steps_of(torch_service, tmp_path, NET))
    assert wrong == {**dict.fromkeys(names, "agree"), "training": "differ"}
