"""The proof of the oracle's gradients holds, and a wrong derivative rule breaks it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from wording import Wording

from harness.checking.engine import Engine
from harness.checking.report import describe_proof
from harness.checking.request import Request, make_case
from harness.errors import HarnessError
from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.oracle import complex_step, oracle
from harness.oracle.complex_step import complex_step_gap
from harness.program.autodiff import rules

OVERFLOW = """model: overflow
summary: Numbers beyond float64.
source: An example.
sizes: {features: 5}
inputs:
  x: {shape: [batch, features]}
layers:
  out: {layer: dense, units: features}
equations: |
  y = exp(exp(exp(9 + out(x) * out(x))))
targets:
  target: {shape: [batch, features]}
loss: mean(squared_error(y, target))
optimizer: {optimizer: sgd, learning_rate: 0.05}
"""


@pytest.mark.parametrize("name", lesson6())
def test_derived_gradients_agree_with_the_complex_step(name: str) -> None:
    gap = complex_step_gap(make_case(load_spec(name), Request(), own=False))
    assert 0 < gap < 1e-14


def wrong_rule(r: Any, node: Any, g: int) -> None:
    r.add(node.inputs[0], r.emit("multiply", g, r.constant(1.0)))


def test_a_wrong_rule_is_an_error(monkeypatch: pytest.MonkeyPatch, wording: Wording) -> None:
    monkeypatch.setitem(rules.RULES, "tanh", wrong_rule)
    case = make_case(load_spec("lesson6/three_char"), Request(), own=False)
    with wording.raises(HarnessError):
        complex_step_gap(case)


@pytest.mark.parametrize("huge", [False, True])
@pytest.mark.parametrize("wrong", [False, True])
def test_a_deep_model_is_proved_in_as_many_passes_as_it_has_kinds_of_parameters(
    monkeypatch: pytest.MonkeyPatch, wrong: bool, huge: bool, wording: Wording
) -> None:
    """With a pass for each parameter, the time grows with the square of the depth: 96 blocks took
    minutes. A huge model, such as a ResNet, has fewer passes than kinds of parameters."""
    passes = []
    if huge:
        monkeypatch.setattr(complex_step, "HUGE", 0)
        monkeypatch.setattr(complex_step, "DIRECTIONS", 3)

    def counted(*arguments: Any, **choices: Any) -> Any:
        passes.append(arguments)
        return run(*arguments, **choices)

    run = oracle.run
    if wrong:
        monkeypatch.setitem(rules.RULES, "tanh", wrong_rule)
    case = make_case(load_spec("gpt"), Request(sizes={"depth": 8}), own=False)
    case.gradients(case.material, "main")
    monkeypatch.setattr(oracle, "run", counted)
    if wrong:
        with wording.raises(HarnessError):
            complex_step_gap(case)
    else:
        assert 0 < complex_step_gap(case) < 1e-14
    kinds = {re.sub(r"\d+", "*", p.name) for p in case.training.parameters}
    assert len(passes) == (3 if huge else len(kinds)) < len(case.training.parameters) / 4


def test_gradients_that_are_not_finite_prove_nothing_and_it_is_said(
    tmp_path: Path, wording: Wording
) -> None:
    """Nor do they warn: numpy's own warning once stood among the results."""
    (tmp_path / "overflow.yaml").write_text(OVERFLOW)
    case = make_case(load_spec(str(tmp_path / "overflow.yaml")), Request(), own=False)
    gap = complex_step_gap(case)
    assert math.isnan(gap)
    wording(describe_proof({"overflow": gap}), "gradients")
    wording(describe_proof({"overflow": gap, "fine": 1e-16}), "1 ... agree ... 1.0e-16")


def test_every_run_proves_the_specs_that_it_checks() -> None:
    request = Request(specs=("lesson6/simple_rnn",), backends=("numpy",), checks=("values",))
    with Engine(request) as engine:
        engine.run()
        assert set(engine.cases.proofs) == {"lesson6/simple_rnn"}
