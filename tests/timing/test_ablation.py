"""The ablation of the passes: what is left out, that values stay, what counts as worth it."""

from __future__ import annotations

from typing import Any

import pytest
from ablation import PASSES, canonical, without
from ablation_page import pays, systems, table
from plan_runs import arrays_of, assert_close, plan_of, run_plan

from harness.program import passes

SYSTEMS = ("lesson6/sequence_rnn", "lesson6/keras_gru", "lesson6/sequence_unrolled")


@pytest.mark.parametrize("mode", ["train", "forward"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_plan_without_a_pass_keeps_its_values(name: str, mode: str) -> None:
    plan = plan_of(name, mode, "float64")
    wanted = run_plan(plan, arrays_of(name, mode, plan, 0))
    for off in PASSES:
        with without(off):
            other = plan_of(name, mode, "float64")
        assert_close(run_plan(other, arrays_of(name, mode, other, 0)), wanted, 1e-9)


def test_a_pass_that_is_off_is_on_again_afterwards() -> None:
    before = passes.merged
    plan = plan_of("lesson6/sequence_rnn", "forward", "float64")
    with without("unroll"):
        other = plan_of("lesson6/sequence_rnn", "forward", "float64")
    assert canonical(other) != canonical(plan)
    assert canonical(plan_of("lesson6/sequence_rnn", "forward", "float64")) == canonical(plan)
    assert passes.merged is before


def cells(**ratios: Any) -> dict[str, Any]:
    return {f"{key} train 64": {"ratios": {"tables": found}} for key, found in ratios.items()}


def test_a_pass_pays_on_two_systems_of_one_backend() -> None:
    one = cells(a=[1.04, 1.02, 1.05], b=[1.029, 1.02, 1.03], c=None, d=[1.2, 0.9, 1.4])
    two = cells(a=[1.04, 1.02, 1.05], b=[1.03, 1.02, 1.03], c=None)
    assert systems(one, "tables") == ["a"]
    assert not pays({"cells": {"numpy": one, "torch": one}}, "tables")
    assert pays({"cells": {"numpy": one, "torch": two}}, "tables")
    assert not pays({"cells": {"numpy": one, "torch": two}}, "loops")


def test_the_table_counts_a_plan_that_stays_the_same_as_one() -> None:
    found = {"cells": {"numpy": cells(a=None, b=None, c=[1.5, 1.4, 1.6]), "jax": {}}}
    assert table(found).splitlines()[-1] == "| `tables` | 1 (1.00 to 1.50) |  |"
