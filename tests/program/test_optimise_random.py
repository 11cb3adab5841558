"""Whatever a spec composes: the passes end, keep the values, and leave no more to do."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from plan_checks import SETS, check_plans, watch_rewrites
from random_models import models

from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.program.fused import FUSED
from harness.program.passes import unroll
from harness.program.passes.rewriter import DEEPEST
from harness.program.plan import forward_plan, training_plan

MANY = int(os.environ.get("HARNESS_RANDOM_MODELS", "30"))
random_models = settings(
    max_examples=MANY,
    deadline=None,
    derandomize="HARNESS_RANDOM_MODELS" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.slow
@pytest.mark.parametrize("large", [unroll.LARGE, 1], ids=["unrolled", "loops"])
@pytest.mark.parametrize("fused", SETS)
@random_models
@given(drawn=models())
def test_the_plans_of_any_model_keep_its_values(
    fused: str, large: int, drawn: tuple[str, dict[str, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unroll, "LARGE", large)
        check_plans(*drawn, SETS[fused])


@pytest.mark.slow
@random_models
@given(drawn=models())
def test_every_application_of_a_rule_is_nearer_to_the_end(
    drawn: tuple[str, dict[str, int]],
) -> None:
    with watch_rewrites() as found:
        check_plans(*drawn, tuple(FUSED))
    assert 5 * found.deepest < DEEPEST


@pytest.mark.parametrize("name", lesson6())
def test_every_application_in_a_shipped_model_is_nearer_to_the_end(name: str) -> None:
    spec = load_spec(name)
    training, inference = spec.program("training"), spec.program("inference")
    sizes = {**training.sizes, "batch": 64, "time": 40}
    with watch_rewrites() as found:
        training_plan(training, spec.update, sizes, "float32", FUSED, learning_rate=0.1)
        for moved in (True, False):
            forward_plan(inference, sizes, "float32", (), moved=moved)
    assert 0 < 5 * found.deepest < DEEPEST
