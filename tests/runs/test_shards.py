"""Shards: every part of a plan is in exactly one, and they are alike."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wording import Wording

from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.errors import UsageError
from harness.results.cell import Cell
from harness.runs.plans import Plans, RunPlan, join_name
from harness.runs.shards import Shard
from harness.timing.request import BenchRequest
from harness.timing.run import Bench

Names = st.sets(st.tuples(st.sampled_from("ab"), st.text(max_size=3)), min_size=1, max_size=40)


def part(number: int, count: int, items: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return Shard(number, count).select(items, lambda item: item, "cell")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(Names, st.integers(1, 40), st.randoms())
def test_every_item_is_in_exactly_one_shard_whatever_the_order(
    names: set[tuple[str, str]], count: int, random: st.random.Random
) -> None:
    items = sorted(names)
    count = min(count, len(items))
    shards = [part(n, count, items) for n in range(1, count + 1)]
    assert sorted(item for shard in shards for item in shard) == items
    sizes = [len(shard) for shard in shards]
    assert 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1
    for kind in "ab":
        kinds = [sum(item[0] == kind for item in shard) for shard in shards]
        assert max(kinds) - min(kinds) <= 1
    random.shuffle(items)
    assert [set(part(n, count, items)) for n in range(1, count + 1)] == [*map(set, shards)]


def cells(request: Request) -> list[Cell]:
    with Engine(request) as engine:
        return engine.cells()


SPECS = ("lesson6/simple_rnn", "lesson6/keras_gru", "lesson6/three_char")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.permutations(SPECS),
    st.permutations(("numpy", "torch")),
    st.permutations(("float64", "float32")),
    st.integers(1, 12),
)
def test_shards_of_a_check_are_those_of_its_plan(
    specs: list[str], backends: list[str], dtypes: list[str], count: int
) -> None:
    whole = cells(Request(SPECS, ("numpy", "torch")))
    found = [
        cells(Request((*specs,), (*backends,), (*dtypes,), shard=Shard(n, count)))
        for n in range(1, count + 1)
    ]
    assert Counter(cell for shard in found for cell in shard) == Counter(whole)
    for number, shard in enumerate(found, start=1):
        assert {*shard} == {*cells(Request(SPECS, ("numpy", "torch"), shard=Shard(number, count)))}
        if count <= 6:  # backends that are compared with each other are in one
            assert Counter(c.backend for c in shard)["numpy"] == len(shard) / 2
    with pytest.raises(UsageError, match="the run has 12 cells, too few for 13 shards"):
        cells(Request(SPECS, ("numpy", "torch"), shard=Shard(1, 13)))


def test_shards_of_a_bench_are_whole_groups() -> None:
    found = []
    for number in range(1, 5):
        request = BenchRequest(SPECS, ("numpy", "torch"), shard=Shard(number, 4))
        with Bench(request) as bench:
            found += [group.name for group in bench.plan.groups]
            assert {g.mode for g in bench.plan.groups} <= {"forward", "train"}
            assert bench.plan.record().cells == 12
    with Bench(BenchRequest(SPECS, ("numpy", "torch"))) as bench:
        assert sorted(found) == sorted(group.name for group in bench.plan.groups)


@pytest.mark.parametrize(
    "text", ["", "0/4", "5/4", "1", "1/2/3", "a/b", "-1/4", "1/0", "1/9999999"]
)
def test_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="--shard takes NUMBER/COUNT, such as 2/4"):
        Shard.read(text)


def test_what_is_missing_is_told() -> None:
    plan = RunPlan(cells=144, digest="a")
    plans = Plans.of([plan.model_copy(update={"shard": f"{n}/4"}) for n in (1, 2, 4)])
    names = [*map(str, range(144))]
    assert plans.describe_missing(names[:108]) == (36, ["3 of 4 shards: missing 3/4"])
    assert Plans.of([plan]).describe_missing(names) == (0, [])


def test_what_is_missing_of_several_plans_is_counted_by_name() -> None:
    first = RunPlan.of([["a", "b"], ["x", "y"]], Shard(1, 2))
    second = RunPlan.of([["b", "c"], ["y"]], Shard(1, 1))
    there = [join_name(name) for name in ("ax", "ay", "by")]
    told = ["1 of 2 shards: missing 2/2"]
    assert Plans.of([first, second]).describe_missing(there) == (2, told)  # bx and cy
    assert Plans.of([first]).describe_missing([*there, join_name("zz")]) == (1, told)
    assert Plans.of([first, second]).describe_missing(
        [join_name(n) for n in ("ax", "ay", "bx", "by", "cy")]
    ) == (
        0,
        told,
    )


@pytest.mark.parametrize(
    "axes", [None, [["a"], ["changed"]], [["a"] * 2000] * 3, [["a" * 9999] * 999] * 2]
)
def test_a_plan_that_does_not_name_its_cells_is_counted(axes: object, wording: Wording) -> None:
    other = RunPlan.of([["b"], ["y"]], None)
    unnamed = RunPlan.of([["a"], ["x", "y"]], Shard(1, 2)).model_copy(update={"axes": axes})
    missing, told = Plans.of([unnamed, other]).describe_missing([join_name("ax"), join_name("by")])
    assert missing == 1
    wording(told[-1])
    assert Plans.of([unnamed]).describe_missing([join_name("ax")]) == (
        1,
        ["1 of 2 shards: missing 2/2"],
    )
