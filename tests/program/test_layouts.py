"""Values that are read in two orders of axes are made in the one that moves less."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_optimise import BATCH, ROWS, TIME, UNITS, Small

from harness.language.model import load_spec
from harness.program.dims import ONE
from harness.program.plan import forward_plan

TURN = (1, 0, 2)


def turned(s: Small, x: int) -> int:
    return s.emit("permute_dims", x, axes=TURN)


# From x [batch, time, units], what can be had time first as well.
MADE: dict[str, Callable[[Small, int], int]] = {
    "product": lambda s, x: s.emit("matmul", x, s.given(UNITS, ROWS)),
    "by a column": lambda s, x: s.emit("divide", s.emit("exp", x), s.given(TIME, ONE)),
    "by a row": lambda s, x: s.emit("add", s.emit("exp", x), s.given(UNITS)),
    "sum": lambda s, x: s.emit("subtract", x, s.emit("sum", x, axis=(1,), keepdims=True)),
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_read_both_ways_is_made_in_one(name: str) -> None:
    """``y + g(y.T).T``, and its largest of all, so that nothing is left to be turned back."""
    s = Small()
    y = MADE[name](s, s.given(BATCH, TIME, UNITS))
    added = s.emit("add", y, turned(s, s.emit("cumulative_sum", turned(s, y))))
    end = s.emit("max", added, axis=(0, 1, 2), keepdims=False)
    nodes, types = s.same(end), s.builder.types
    made = {n.output for n in nodes}
    moves = [n for n in nodes if n.op == "permute_dims" and n.inputs[0] in made]
    assert not [n for n in moves if BATCH in types[n.output].shape]


def test_a_long_chain_is_turned_as_a_short_one_is() -> None:
    """One of 400 layers ended in a RecursionError."""
    s = Small()
    y = s.given(BATCH, TIME, UNITS)
    for _ in range(1200):
        y = s.emit("tanh", s.emit("add", y, s.number(1)))
    added = s.emit("add", y, turned(s, s.emit("cumulative_sum", turned(s, y))))
    end = s.emit("max", added, axis=(0, 1, 2), keepdims=False)
    nodes = s.same(end)
    made = {n.output for n in nodes}
    moves = [n for n in nodes if n.op == "permute_dims" and n.inputs[0] in made]
    assert not [n for n in moves if BATCH in s.builder.types[n.output].shape]


def test_what_a_loop_has_made_stays_in_its_order() -> None:
    """There is no other order to make it in."""
    s = Small()
    x = s.given(BATCH, TIME, UNITS)
    y = s.emit("cumulative_sum", x)
    end = s.emit("add", y, turned(s, s.emit("cumulative_sum", turned(s, y))))
    nodes = s.same(end)
    assert sum(n.op == "permute_dims" for n in nodes) == 2


@pytest.mark.parametrize("moved", [True, False])
def test_a_graph_is_summed_with_its_nodes_first(moved: bool) -> None:
    """Its features come so, and only its result is turned."""
    program = load_spec("gcn").program("inference")
    plan = forward_plan(program, {**program.sizes, "batch": 64}, "float64", (), moved=moved)
    assert plan.orders == {"input.x": TURN}
    large = [n for n in plan.nodes if n.op == "permute_dims" and 64 in plan.shape(n.output)]
    assert [n.output for n in large] == list(plan.outputs.values())
