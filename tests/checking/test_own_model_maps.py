"""Rules of --map with sizes and sums, and all wrong rules at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from users_models import checked, model_file
from wording import Wording

from harness.checking.own_model.against import parse_against
from harness.checking.request import Request
from harness.checking.run_cell import CannotCheck
from harness.checking.runner import CellRunner
from harness.checking.shared_cases import SharedCases
from harness.runtime.own_model.service import OwnModelService

SPEC = """\
model: gated
summary: One of a test.
source: A test.
sizes: {features: 5, inner: 6, classes: 3}
inputs:
  x: {shape: [batch, features]}
layers:
  gate: {layer: dense, units: inner}
  up: {layer: dense, units: inner}
  out: {layer: dense, units: classes}
equations: |
  y = out(sigmoid(gate(x)) * up(x))
"""
NET = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, features=5, inner=6, classes=3):
        super().__init__()
        self.both = nn.Linear(features, 2 * inner)
        self.more = nn.Parameter(torch.zeros(inner))
        self.head = nn.Linear(inner, classes)

    def forward(self, x):
        gate, up = self.both(x).chunk(2, -1)
        return self.head(torch.sigmoid(gate + self.more) * up)


class Lacking(Net):
    def forward(self, x):
        gate, up = self.both(x).chunk(2, -1)
        return self.head(torch.sigmoid(gate) * up)


class Larger(Net):
    def __init__(self):
        super().__init__()
        self.dead = nn.Linear(2, 2)


class Detached(Net):
    def forward(self, x):
        gate, up = self.both(x).chunk(2, -1)
        return self.head(torch.sigmoid(gate + self.more.detach()) * up)
"""
RULES = (
    "gate.W=both.weight[:inner].T",
    "gate.b=both.bias[:inner] + more",
    "up.W=both.weight[inner:2 * inner].T",
    "up.b=both.bias[inner:]",
    "out=head",
)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_sizes_in_slices_and_a_sum(
    torch_service: OwnModelService, tmp_path: Path, dtype: str
) -> None:
    spec, file = model_file(tmp_path, SPEC, "gated.yaml"), model_file(tmp_path, NET)
    result = checked(torch_service, spec, f"{file}:Net", dtype, maps=RULES)
    assert {f.verdict for f in result.findings} == {"agree"}
    assert result.ratio is not None
    assert result.ratio < 3


def test_a_rule_leaves_out_arrays_that_the_spec_does_not_have(
    torch_service: OwnModelService, tmp_path: Path
) -> None:
    spec, file = model_file(tmp_path, SPEC, "gated.yaml"), model_file(tmp_path, NET)
    rules = (*RULES, "-=dead.weight", "-=dead.bias")
    model = f"{file}:Larger"
    assert checked(torch_service, spec, model, "float64", maps=rules).verdict == "agree"
    for wrong, name in ((rules[:-1], r"dead\.bias"), ((*rules, "-=gone"), "-=gone")):
        with pytest.raises(CannotCheck, match=name):
            checked(torch_service, spec, model, "float64", maps=wrong)


@pytest.mark.parametrize(("name", "check"), [("Lacking", "inference"), ("Detached", None)])
def test_a_summand_that_is_not_used_differs(
    torch_service: OwnModelService, tmp_path: Path, name: str, check: str | None
) -> None:
    spec, file = model_file(tmp_path, SPEC, "gated.yaml"), model_file(tmp_path, NET)
    result = checked(torch_service, spec, f"{file}:{name}", "float64", maps=RULES)
    first = next(f for f in result.findings if f.verdict == "differ")
    assert first.check == (check or "cotangent-gradients")
    wrong = [d for d in first.deviations if not d.agrees]
    assert np.isfinite(wrong[0].error)
    if check is None:
        assert [d.name for d in wrong] == ["gradient.gate.b"]


def test_all_wrong_rules_and_missing_weights_are_told_at_once(
    torch_service: OwnModelService, tmp_path: Path, wording: Wording
) -> None:
    spec, file = model_file(tmp_path, SPEC, "gated.yaml"), model_file(tmp_path, NET)
    rules = (
        "gate.W=both.wieght[:inner].T",
        "gate.b=both.bias[:iner]",
        "up.W=both.weight[inner:2 * inner]",
        "upp.b=both.bias[inner:]",
        "up.b=both.bias[inner + 1:]",
    )
    with pytest.raises(CannotCheck) as caught:
        checked(torch_service, spec, f"{file}:Net", "float64", maps=rules)
    lines = str(caught.value).split("\n")
    for line, part in zip(
        lines,
        ("'both.wieght[:inner].T'", "'iner'", "'upp.b'", "up.W", "up.b", "out's W"),
        strict=True,
    ):
        wording.line(line, part)


def test_all_rules_of_a_wrong_form_are_told_at_once(
    torch_service: OwnModelService, tmp_path: Path
) -> None:
    spec, file = model_file(tmp_path, SPEC, "gated.yaml"), model_file(tmp_path, NET)
    with pytest.raises(CannotCheck, match=r"'gate='(.|\n)*'=up'"):
        checked(torch_service, spec, f"{file}:Net", "float64", maps=("gate=", "=up"))


TIED = """\
model: tied
summary: One of a test.
source: A test.
sizes: {vocab: 5, units: 3}
inputs:
  chars: {shape: [batch, time], index: vocab}
layers:
  embed: {layer: embedding, rows: vocab, units: units}
  out: {layer: unembedding, rows: vocab, shares: embed}
equations: |
  y = out(embed(chars))
"""
UNTIED = """\
from torch import nn


def untied(vocab=5, units=3):
    return nn.Sequential(nn.Embedding(vocab, units), nn.Linear(units, vocab, bias=False))


def tied(vocab=5, units=3):
    model = untied(vocab, units)
    model[1].weight = model[0].weight
    return model
"""


def test_a_head_that_is_not_tied_is_named(
    torch_service: OwnModelService, tmp_path: Path, wording: Wording
) -> None:
    spec, file = model_file(tmp_path, TIED, "tied.yaml"), model_file(tmp_path, UNTIED)
    assert checked(
        torch_service, spec, f"{file}:tied", "float64", maps=("embed.table=0.weight",)
    ).verdict == ("agree")
    with pytest.raises(CannotCheck) as caught:
        checked(torch_service, spec, f"{file}:untied", "float64", maps=("embed.table=0.weight",))
    wording.line(caught.value, "1.weight ... 0.weight ... embed.table")


def test_wrong_names_are_told_before_the_oracle_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the oracle ran")

    monkeypatch.setattr(SharedCases, "get", fail)
    spec, file = model_file(tmp_path, SPEC, "gated.yaml"), model_file(tmp_path, NET)
    own = parse_against(f"{file}:Net", maps=("gate.W=both.wieght[:inner].T",))
    with CellRunner(Request(specs=(str(spec),), against=own)) as runner:
        cell = runner.cells()[0]
        with pytest.raises(CannotCheck, match=r"'both\.weight'"):
            runner.run_cell(cell)
