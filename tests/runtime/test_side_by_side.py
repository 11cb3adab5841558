"""What an optimizer makes of each parameter alike is made of all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
from places import SUPPORT
from plan_runs import arrays_of, assert_close, plan_of, run_plan

from harness.backends.numpy.executor_kernels import NumpyKernels
from harness.program.builder import Builder
from harness.program.dims import Dim, Shape
from harness.program.ir import Type
from harness.program.plan import Plan
from harness.runtime.executor import KEPT, Executor, joining
from harness.runtime.executor.joining import BufferJoiner
from harness.runtime.executor.linearize import Flattener

SIDE = 3
SQUARE = (Dim(SIDE), Dim(SIDE))


def carrying(
    builder: Builder,
    given: dict[str, int],
    new: dict[str, int],
    carried: dict[str, str] | None = None,
) -> Plan:
    """A plan whose ``new`` values take the place of those given, or some of them."""
    nodes = tuple(builder.nodes)
    carried = carried or {name: name for name in new}
    return Plan("plan", builder.types, {}, "float64", nodes, given, new, carried)


def calls(plan: Plan) -> Counter[str]:
    """The instructions of a plan with what is alike joined, by operation."""
    return Counter(one.op for one in BufferJoiner(Flattener(plan).instructions, {}).instructions)


def follows_the_walk(plan: Plan, rounds: int = 3) -> None:
    """Compare some rounds, each from what the one before carried."""
    random = np.random.default_rng(0)
    wanted = {n: random.normal(size=plan.shape(v)) for n, v in plan.inputs.items()}
    executor, found = Executor(plan, NumpyKernels("float64")), dict(wanted)
    for _ in range(rounds):
        new = run_plan(plan, wanted)
        results = executor(found)
        assert_close(results, new, 1e-12)
        wanted, found = {**wanted, **new}, {**found, **results}


def descent(builder: Builder, parameter: int, gradient: int, rate: float) -> int:
    """p - rate g p"""
    step = builder.emit("multiply", builder.constant(rate), gradient)
    return builder.emit("subtract", parameter, builder.emit("multiply", step, parameter))


def descents(
    shapes: Mapping[str, Shape], rates: Mapping[str, float] | None = None, scaled: str = ""
) -> Plan:
    """Each parameter descends by what it is in reverse; those of ``scaled`` are scaled before."""
    builder = Builder()
    given = {name: builder.value(Type(shape)) for name, shape in shapes.items()}
    gradients = {n: builder.emit("flip", v, axis=0) for n, v in given.items()}
    for name in scaled:
        gradients[name] = builder.emit("multiply", builder.constant(2.0), gradients[name])
    rates = rates or dict.fromkeys(given, 0.125)
    new = {n: descent(builder, v, gradients[n], rates[n]) for n, v in given.items()}
    return carrying(builder, given, new)


def test_of_parameters_of_any_shape() -> None:
    plan = descents({"a": SQUARE, "b": (Dim(5),), "c": (Dim(2), Dim(1), Dim(4))})
    assert calls(plan) == {"flip": 3, "multiply": 2, "subtract": 1}
    follows_the_walk(plan)


def test_each_with_numbers_of_its_own() -> None:
    rates = {"a": 0.25, "b": 0.125, "c": 0.25}
    plan = descents({"a": SQUARE, "b": (Dim(5),), "c": SQUARE}, rates)
    assert calls(plan) == {"flip": 3, "multiply": 2, "subtract": 1}
    follows_the_walk(plan)


@pytest.mark.parametrize("scaled", ["a", "b", "ac"])
def test_of_those_whose_gradients_are_scaled_before(scaled: str) -> None:
    plan = descents(dict.fromkeys("abc", SQUARE), scaled=scaled)
    assert calls(plan) == {"flip": 3, "multiply": 2 + len(scaled), "subtract": 1}
    follows_the_walk(plan)


def one_after_the_other() -> Plan:
    """The gradient of the second is made of what the first has become."""
    builder = Builder()
    given = {name: builder.value(Type(SQUARE)) for name in "ab"}
    a = descent(builder, given["a"], builder.emit("flip", given["a"], axis=0), 0.5)
    b = descent(builder, given["b"], builder.emit("matmul", a, given["b"]), 0.5)
    return carrying(builder, given, {"a": a, "b": b})


def test_not_of_what_is_read_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = one_after_the_other()
    assert calls(plan)["subtract"] == 2
    follows_the_walk(plan)
    monkeypatch.setattr(joining, "_movable", lambda chains, *_: chains)
    assert calls(plan)["subtract"] == 1
    with pytest.raises(AssertionError):
        follows_the_walk(plan)


def test_large_ones_stay_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of("vae", "train", "float64")
    joined = sum(calls(plan).values())
    monkeypatch.setattr(joining, "MOST", 1000)
    less = sum(calls(plan).values())
    monkeypatch.setattr(joining, "MOST", 1)
    assert joined < less < sum(calls(plan).values())


ODD = ("two_gates", "gated_by_the_one_before")


@pytest.mark.parametrize(
    "model",
    ["vae", "mlp", "gcn", "dlrm", *(str(SUPPORT / "odd_models" / f"{one}.yaml") for one in ODD)],
)
def test_models_train_as_their_plans_walk(model: str) -> None:
    plan = plan_of(model, "train", "float64")
    wanted = arrays_of(model, "train", plan, 0)
    executor, found = Executor(plan, NumpyKernels("float64")), dict(wanted)
    for _ in range(3):
        results, new = executor(found), run_plan(plan, wanted)
        assert_close(results, new, 1e-9)
        for output, port in plan.carried.items():
            wanted[port], found[port] = new[output], results[output]


def drawn(seed: int) -> Plan:
    """Four parameters, each with one of two rules; what goes into a rule is any value before it,
    or what another rule has come to, and their steps are made in any order."""
    random = np.random.default_rng(seed)
    builder = Builder()
    given = {name: builder.value(Type(SQUARE)) for name in "abcd"}
    rules = [random.choice(["add", "multiply", "subtract"], 3) for _ in range(2)]
    steps = {name: iter(rules[random.integers(2)]) for name in given}
    seen, new = list(given.values()), dict(given)
    fed = {n: builder.emit("flip", seen[random.integers(4)], axis=0) for n in given}
    while steps:
        name = str(random.choice([*steps]))
        if (op := next(steps[name], None)) is None:
            del steps[name]
            continue
        new[name] = builder.emit("tanh", builder.emit(op, new[name], fed[name]))
        seen.append(new[name])
        if random.random() < 0.2:
            other = str(random.choice([*given]))
            fed[other] = builder.emit("matmul", seen[random.integers(len(seen))], given[other])
    return carrying(builder, given, new)


def test_whatever_is_made_of_what() -> None:
    plans = [drawn(seed) for seed in range(100)]
    for plan in plans:
        follows_the_walk(plan)
    together = [len(plan.nodes) - sum(calls(plan).values()) for plan in plans]
    assert min(together) == 0
    assert sum(map(bool, together)) > 20


def test_beside_an_input_that_is_another_each_time() -> None:
    """More of them than are kept bound are copied, and nothing else is."""
    builder = Builder()
    given = {name: builder.value(Type(SQUARE)) for name in "ab"}
    x = builder.value(Type(SQUARE))
    gradients = {n: builder.emit("matmul", x, v) for n, v in given.items()}
    new = {n: descent(builder, v, gradients[n], 0.125) for n, v in given.items()}
    scaled = {n: builder.emit("multiply", x, v) for n, v in given.items()}
    outputs = {**new, **{f"scaled {n}": v for n, v in scaled.items()}}
    plan = carrying(builder, {**given, "x": x}, outputs, {n: n for n in given})
    executor, random = Executor(plan, NumpyKernels("float64")), np.random.default_rng(0)
    held = {n: random.normal(size=(SIDE, SIDE)) for n in plan.inputs}
    kept = []
    for _ in range(KEPT + 3):
        kept.append(np.array(random.normal(size=(SIDE, SIDE))))
        assert_close(
            executor({**held, "x": kept[-1]}), run_plan(plan, {**held, "x": kept[-1]}), 1e-12
        )
