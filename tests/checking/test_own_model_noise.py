"""Noise of a model of a user's own: compared if the model takes it, named in the verdict if not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from users_models import checked, model_file

from harness.checking.own_model.checks import ModelContext
from harness.checking.request import Request, make_case
from harness.cli import cli
from harness.language.model import load_spec
from harness.results.cell import CellResult
from harness.runtime.own_model.service import OwnModelService
from harness.worker.remote import WorkerFault
from harness.worker.worker import Outcome

CODE = """\
model: code
summary: A number drawn from a normal law, with some of its entries left out.
source: A test.
sizes: {width: 5, code: 4}
inputs: {x: {shape: [batch, width]}}
layers:
  center: {layer: dense, units: code}
  spread: {layer: dense, units: code}
  sample: {layer: gaussian_sample}
  drop: {layer: dropout, keep: 0.7}
equations: |
  z = drop(sample(center(x), spread(x)))
"""
# POWER: 0.5 for the deviation, 1.0 for the variance, which is the planted fault.
MODEL = """\
import torch
from torch import nn


class Code(nn.Module):
    def __init__(self, width=5, code=4):
        super().__init__()
        self.center, self.spread = nn.Linear(width, code), nn.Linear(width, code)

    def sampled(self, x, unit, power):
        return self.center(x) + torch.exp(power * self.spread(x)) * unit


class Given(Code):
    def forward(self, x, unit, drop_kept):
        z = self.sampled(x, unit, POWER)
        return z * drop_kept / 0.7 if self.training else z


class InOne(Code):
    def forward(self, x, noise):
        return self.sampled(x, noise["sample.unit"], POWER) * noise["drop.kept"] / 0.7


class Drawing(Code):
    def forward(self, x):
        center = self.center(x)
        unit = torch.randn_like(center) if self.training else 0 * center
        return nn.functional.dropout(self.sampled(x, unit, POWER), 0.3, self.training)
"""
RIGHT, VARIANCE = MODEL.replace("POWER", "0.5"), MODEL.replace("POWER", "1.0")
TRAINING = "training: inference is right; wrong in training mode: output.z"


def made(
    service: OwnModelService, folder: Path, source: str, name: str, **more: object
) -> CellResult:
    # A file of its own each time: a service imports a file once.
    place = f"code_{len(list(folder.iterdir()))}.py"
    spec, file = model_file(folder, CODE, "code.yaml"), model_file(folder, source, place)
    return checked(service, spec, f"{file}:{name}", "float64", **more)


@pytest.mark.parametrize("name", ["Given", "InOne"])
def test_the_variance_for_the_deviation_is_found_where_noise_is_taken(
    torch_service: OwnModelService, tmp_path: Path, name: str
) -> None:
    right = made(torch_service, tmp_path, RIGHT, name)
    assert (right.verdict, list(right.not_compared)) == ("agree", [])
    assert "outputs" in {f.check for f in right.findings}
    wrong = made(torch_service, tmp_path, VARIANCE, name)
    assert wrong.verdict == "differ"
    assert wrong.location == TRAINING


def test_noise_that_a_model_draws_itself_is_named_as_not_compared(
    torch_service: OwnModelService, tmp_path: Path
) -> None:
    wrong = made(torch_service, tmp_path, VARIANCE, "Drawing")
    assert wrong.verdict == "agree"
    noise, mode = wrong.not_compared
    assert "(sample.unit, drop.kept: " in noise
    assert mode == "training mode"


DROPPED = """\
model: dropped
summary: Dropout before and after a product.
source: A test.
inputs: {x: {shape: [batch, 2, time, 4]}}
layers: {first: {layer: dropout, keep: 0.7}, second: {layer: dropout, keep: 0.9}}
parameters: {w: {shape: [4, 5], init: glorot_uniform}}
equations: |
  z = second(first(softmax(x @ permute_dims(x, axes=[0, 1, 3, 2]) / 2)) @ x @ w)
"""
DROPPING = """\
import torch
from torch import nn


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 5))
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        p = 0.3 if self.training else 0.0
        return self.drop(nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=p) @ self.w)
"""


def test_dropout_of_a_torch_model_uses_the_noise_of_the_spec(
    torch_service: OwnModelService, tmp_path: Path
) -> None:
    spec = model_file(tmp_path, DROPPED, "dropped.yaml")
    planted = {
        "right.py": DROPPING,
        "rate.py": DROPPING.replace("Dropout(0.1)", "Dropout(0.2)"),
        "attention.py": DROPPING.replace("0.3 if", "0.2 if"),
        "other.py": DROPPING.replace(
            "return self", "x = x + 0 * torch.randn(4)\n        return self"
        ),
    }
    results = {}
    for name, source in planted.items():
        file = model_file(tmp_path, source, name)
        target = f"{file}:Dropping"
        results[name] = checked(torch_service, spec, target, "float64", maps=("own.w=w",))
    assert (results["right.py"].verdict, list(results["right.py"].not_compared)) == ("agree", [])
    assert "outputs" in {f.check for f in results["right.py"].findings}
    for name in ("rate.py", "attention.py"):
        assert (results[name].verdict, results[name].location) == ("differ", TRAINING)
    noise, mode = results["other.py"].not_compared
    assert "(first.kept, second.kept: " in noise
    assert mode == "training mode"


def test_noise_by_takes_in_another_order(torch_service: OwnModelService, tmp_path: Path) -> None:
    source = VARIANCE.replace("forward(self, x, unit, drop_kept)", "forward(self, drop_kept, e, x)")
    source = source.replace("sampled(x, unit, POWER)", "sampled(x, e, POWER)")
    source = source.replace("self.sampled(x, unit, 1.0)", "self.sampled(x, e, 1.0)")
    takes = ("drop.kept", "sample.unit", "x")
    assert made(torch_service, tmp_path, source, "Given", takes=takes).location == TRAINING
    right = source.replace("1.0)", "0.5)")
    assert made(torch_service, tmp_path, right, "Given", takes=takes).verdict == "agree"


def test_the_verdict_line_json_and_records_say_what_was_not_compared(tmp_path: Path) -> None:
    spec, file = model_file(tmp_path, CODE, "code.yaml"), model_file(tmp_path, VARIANCE)
    records = tmp_path / "r.jsonl"
    command = ["check", str(spec), "--against", f"{file}:Drawing", "--dtype", "float64"]
    command += ["--check", "inference"]
    run = CliRunner().invoke(cli, [*command, "--records", str(records)])
    assert run.exit_code == 0, run.output
    words, _, rest = run.stdout.splitlines()[-1].partition("compared: ")[2].partition(", training")
    assert "(sample.unit, drop.kept: " in words
    assert rest.startswith(" mode; ")
    words += ", training mode"
    ended = [json.loads(line) for line in records.read_text().splitlines()]
    (end,) = (line for line in ended if line["kind"] == "end")
    assert ", ".join(end["not_compared"]) == words
    again = CliRunner().invoke(cli, [*command, "--records", str(records), "--resume", "--json"])
    (left,) = json.loads(again.stdout)["not_compared"]
    assert (left["spec"], ", ".join(left["what"])) == ("code", words)
    page = CliRunner().invoke(cli, ["report", str(records), "-o", str(tmp_path / "page.html")])
    assert page.exit_code == 0, page.output
    assert f"not compared: {words}" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_process_that_ended_leaves_the_noise_not_compared(tmp_path: Path) -> None:
    class Ended:
        def load(self, material: object) -> None:
            raise WorkerFault("load", Outcome("timeout"))

    spec = load_spec(str(model_file(tmp_path, CODE, "code.yaml")))
    remote: Any = Ended()
    case = make_case(spec, Request(), own=False)
    context = ModelContext(case, remote, "float32", takes=("input.x",))
    assert "sample.unit" in context.not_compared()[0]
