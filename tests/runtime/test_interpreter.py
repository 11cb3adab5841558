"""The interpreter: the order of loops, who runs calls, and what a watch is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from golden.tiny import Tiny, draw, environment, tiny

from harness.errors import blamed
from harness.oracle.oracle import TABLE
from harness.program.autodiff.differentiate import differentiate
from harness.program.ir import Node, walk_nodes
from harness.runtime.interpreter import Interpreter, Line, Values, loop

NUMBERS = np.arange(1.0, 5.0)
SUMS = [1.0, 3.0, 6.0, 10.0]


def accumulate(carries: Sequence[Any], slices: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    total = carries[0] + slices[0]
    return [total], [total, slices[0]]


@pytest.mark.parametrize(
    ("reverse", "times", "sums"),
    [(False, [0, 1, 2, 3], SUMS), (True, [3, 2, 1, 0], [10.0, 9.0, 7.0, 4.0])],
)
def test_a_loop_tells_its_steps_and_stacks_in_the_order_of_time(
    reverse: bool, times: list[int], sums: list[float]
) -> None:
    told: list[int] = []
    last, (stacked, same) = loop(
        TABLE, accumulate, [np.float64(0)], [NUMBERS], reverse, told.append
    )
    assert told == times
    assert last == [10.0]
    assert stacked.tolist() == sums
    assert same.tolist() == NUMBERS.tolist()


def run(case: Tiny, **choices: Any) -> tuple[dict[int, Any], Interpreter]:
    interpreter = Interpreter(TABLE, case.sizes, "float64", np.float64, **choices)
    return interpreter.run(case.program.nodes, environment(case, draw(case, 3))), interpreter


def test_a_claimed_call_runs_in_place_of_its_equations() -> None:
    case = tiny("layer", "lstm")
    (call,) = case.program.calls
    seen: list[Mapping[int, Any]] = []

    def claimed(node: Node) -> Line:
        assert node is call

        def line(values: Values) -> None:
            seen.append(dict(values))
            values.update({o: np.full(3, float(n)) for n, o in enumerate(node.outputs)})

        return line

    env, _ = run(case, claimed={"cell": claimed})
    assert len(seen) == 1
    assert set(call.inputs) <= set(seen[0])
    for number, output in enumerate(call.outputs):
        assert env[output].tolist() == [float(number)] * 3
    inner = {o for n in walk_nodes(call.body.nodes) for o in n.outputs} - set(call.outputs)
    assert not inner & set(env)
    plain, _ = run(case, claimed={"another": claimed})
    assert plain[call.outputs[0]].shape == (3, 5, 4)


def test_what_makes_nothing_is_named_where_the_next_primitive_fails() -> None:
    case = tiny("layer", "lstm")
    table = {**TABLE, "matmul": lambda a, b: None}
    interpreter = Interpreter(table, case.sizes, "float64", np.float64)
    with pytest.raises(TypeError, match="it returned None") as caught:
        interpreter.run(case.program.nodes, environment(case, draw(case, 3)))
    assert blamed(caught.value).startswith("in the primitive matmul([3, ")


def test_a_watch_sees_every_value_and_its_step() -> None:
    case = tiny("layer", "lstm")
    shown: list[tuple[int, int | None]] = []
    run(case, watch=lambda number, _, time: shown.append((number, time)))
    (scan,) = [n for n in walk_nodes(case.program.nodes) if n.op == "scan"]
    inside = [o for n in walk_nodes(scan.body.nodes) for o in n.outputs]
    everything = [o for n in walk_nodes(case.program.nodes) for o in n.outputs]
    for number in everything:
        times = [t for v, t in shown if v == number]
        assert times == (list(range(5)) if number in inside else [None]), number
    assert {v for v, _ in shown} == set(everything)


def test_a_watch_sees_a_reversed_loop_backwards_and_is_past_it_afterwards() -> None:
    case = tiny("layer", "simple_rnn")
    derived = differentiate(case.program, case.outputs, list(case.against.values()))
    nodes = derived.program.nodes
    (scan,) = [n for n in nodes if n.op == "scan" and n.reverse]
    env = environment(case, draw(case, 3))
    for seed in derived.seeds:
        shape = derived.program.types[seed.value].shape
        env[seed.value] = np.ones([dim.resolve(case.sizes) for dim in shape])
    shown: list[tuple[int, int | None]] = []
    interpreter = Interpreter(TABLE, case.sizes, "float64", np.float64)
    interpreter.watch = lambda number, _, time: shown.append((number, time))
    interpreter.run(nodes, env)
    first = scan.block.nodes[0].outputs[0]
    assert [time for number, time in shown if number == first] == [4, 3, 2, 1, 0]
    assert shown[-1][1] is None


@pytest.mark.parametrize("name", ["lstm", "conv2d"])
def test_a_run_deletes_each_value_after_its_last_use(name: str) -> None:
    case = tiny("layer", name)
    kept, inputs = run(case)[0], environment(case, draw(case, 3))
    ends = [port.value for port in case.outputs]
    interpreter = Interpreter(TABLE, case.sizes, "float64", np.float64, deletes=True)
    values = interpreter.prepared(case.program.nodes, ends).run(dict(inputs))
    assert {*values} - {*inputs} == {*ends}
    for end in ends:
        assert np.array_equal(values[end], kept[end])


def test_a_backends_own_loop_is_handed_the_direction() -> None:
    case = tiny("layer", "simple_rnn")
    calls: list[tuple[int, int, bool]] = []

    def scan(step: Any, carries: Any, sequences: Any, reverse: bool) -> Any:
        calls.append((len(carries), len(sequences), reverse))
        return loop(TABLE, step, carries, sequences, reverse)

    (own, _), (plain, _) = run(case, scan=scan), run(case)
    assert calls == [(1, 1, False)]
    for port in case.outputs:
        assert np.array_equal(own[port.value], plain[port.value])


def test_sizes_become_numbers_and_the_dtype_is_handed_on() -> None:
    case = tiny("function", "reverse")
    given: list[Mapping[str, Any]] = []
    table = {
        "one_hot": lambda x, **attributes: given.append(attributes) or "made",
        "concat": lambda arrays, **attributes: (
            given.append({"arrays": arrays, **attributes}) or "made"
        ),
    }
    interpreter = Interpreter(table, {**case.sizes, "classes": 7}, "float16", np.float16)
    dim = next(iter(case.program.types.values())).shape[0]
    nodes = [
        Node("one_hot", (0,), (1,), {"classes": dim}),
        Node("concat", (0, 0), (2,), {"axis": 0}),
        Node("constant", (), (3,), {"value": 0.1}),
        Node("extent", (), (4,), {"dims": (dim, dim)}),
    ]
    env = interpreter.run(nodes, {0: "x"})
    assert given == [
        {"classes": 3, "dtype": "float16"},
        {"arrays": ["x", "x"], "axis": 0},
    ]
    assert env[3] == np.float16(0.1)
    assert env[4] == 9
