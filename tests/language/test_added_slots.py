"""Gradients that are gathered over steps, and means of parameters, around any optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from wording import Wording

from harness.checking.explain import explain
from harness.errors import SpecError
from harness.language.added_slots import AVERAGED, GATHERED
from harness.language.model import Spec, load_spec
from harness.oracle.oracle import Oracle
from harness.program.plan import training_plan
from harness.runtime.session import Session
from harness.runtime.updates import claimable

# The gradient of w is x, whatever it is.
MODEL = """\
model: own
summary: Of a test.
source: Of a test.
sizes: {width: 3}
inputs:
  x: {shape: [batch, width]}
layers:
  out: {layer: dense, bias: false, units: 1}
equations: y = out(x)
loss: sum(y)
optimizer: OPTIMIZER
"""
CLIPPED = "total: {square: g * g}, gradient: 'g * minimum(1, 1 / sqrt(square))'"


def spec_with(optimizer: str) -> Spec:
    given = {("model", "own"): MODEL.replace("OPTIMIZER", "{" + optimizer + "}")}
    return load_spec("own", overrides=given)


def run(spec: Spec, batches: np.ndarray, dtype: str = "float64") -> Iterator[dict[str, np.ndarray]]:
    """The parameter and all slots after each step, from ones."""
    programs = (spec.program("training"), spec.program("inference"))
    session = Session(Oracle(), *programs, path="derived", dtype=dtype, rule=spec.update)
    session.load({"out.W": np.ones((3, 1))}, {})
    for batch in batches:
        session.step({"x": batch[None]}, {}, {}, 0.1)
        found = session.read()
        slots = {slot: arrays["out.W"][:, 0] for slot, arrays in found["slots"].items()}
        yield {"p": found["parameters"]["out.W"][:, 0], **slots}


def batches(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3))


def test_an_average_is_that_of_the_parameters_and_changes_nothing_else() -> None:
    made = list(run(spec_with("optimizer: adam, average: 0.75"), batches(4)))
    plain = list(run(spec_with("optimizer: adam"), batches(4)))
    average = np.ones(3)
    for one, other in zip(made, plain, strict=True):
        average = 0.75 * average + 0.25 * other["p"]
        np.testing.assert_allclose(one[AVERAGED], average, rtol=1e-14)
        np.testing.assert_array_equal(one["p"], other["p"])


@pytest.mark.parametrize(
    "optimizer",
    [
        "optimizer: adam",
        f"optimizer: adam, {CLIPPED}",
        'optimizer: sgd_momentum, schedule: "minimum(1, t / 3)", average: 0.5',
        "optimizer: lamb, weight_decay: 0.1 / t",
    ],
)
@pytest.mark.parametrize("count", [2, 3])
def test_steps_that_are_gathered_make_one_step_of_the_mean(optimizer: str, count: int) -> None:
    given = batches(4 * count)
    means = given.reshape(4, count, 3).mean(1)
    made = list(run(spec_with(f"{optimizer}, accumulate: {count}"), given))
    plain = list(run(spec_with(optimizer), means))
    before = {name: made[0][name] for name in plain[0]}
    for number, one in enumerate(made, start=1):
        if number % count == 0:
            before = plain[number // count - 1]
            assert not one[GATHERED].any()
        for name, array in before.items():
            np.testing.assert_allclose(one[name], array, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("added", ["average: 0.9", "accumulate: 2"])
def test_no_framework_s_own_optimizer_stands_for_it(added: str) -> None:
    class Layout:
        joined = False

    with_it, without = spec_with(f"optimizer: adam, {added}"), spec_with("optimizer: adam")
    assert claimable(without.update, Layout())  # type: ignore[arg-type]
    assert not claimable(with_it.update, Layout())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        ("optimizer: sgd, accumulate: 1", "2 ... 1"),
        ("optimizer: sgd, accumulate: 2.5", ""),
        ("optimizer: sgd, average: 1", "1"),
        ("optimizer: sgd, average: 0", "0"),
    ],
)
def test_numbers_that_cannot_be_are_told(optimizer: str, told: str, wording: Wording) -> None:
    with wording.raises(SpecError, told):
        spec_with(optimizer)


def test_a_plan_s_first_step_of_adam_has_its_digits() -> None:
    """1 - 0.999 and 1 - 0.999 ** 1 are the same number there, or p is 7e-6 off."""
    spec = spec_with("optimizer: adam")
    program = spec.program("training")
    sizes = {**program.sizes, "batch": 1, "time": 1}
    plan = training_plan(program, spec.update, sizes, "float32", (), learning_rate=0.1)
    numbers = {n.attributes["value"] for n in plan.nodes if n.op == "constant"}
    assert float(np.float32(1) - np.float32(0.999)) in numbers
    whole = training_plan(program, spec.update, sizes, "float64", (), learning_rate=0.1)
    assert 1 - 0.999 in {n.attributes["value"] for n in whole.nodes if n.op == "constant"}


def test_it_is_explained(tmp_path: Path, wording: Wording) -> None:
    use = "{optimizer: adam, average: 0.9, accumulate: 4}"
    (tmp_path / "own.yaml").write_text(MODEL.replace("OPTIMIZER", use))
    text = explain(str(tmp_path / "own.yaml"), [], {}).text()
    wording.line(text, "4 ... gradients")
    assert "average = 0.9 * average + 0.1 * p" in text
