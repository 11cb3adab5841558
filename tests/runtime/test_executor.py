"""The executor against the walk of the same model: all of Lesson 6, forward and training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plan_runs import arrays_of, assert_close, plan_of, run_plan
from sampling import sampled

from harness.backends.numpy.executor_kernels import NumpyKernels
from harness.backends.numpy.fused import FUSED
from harness.language.library import lesson6
from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.ir import Type
from harness.program.plan import Plan
from harness.runtime.executor import Executor, tiling
from harness.runtime.executor.assignment import MemoryPlan

CELLS = [(name, mode) for name in lesson6() for mode in ("train", "forward")]
SOME = [cell for cell in CELLS if cell[0] in ("lesson6/stateful_lstm", "lesson6/theano_gru")]


def three_steps(
    name: str, mode: str, executor: Executor, reference: Plan, tensor: Any, numpy: Any, rtol: float
) -> None:
    """Run and compare three steps on other batches, each from what the one before carried."""
    wanted_inputs = arrays_of(name, mode, reference, 0)
    inputs = {n: tensor(a) for n, a in wanted_inputs.items()}
    for seed in range(3):
        for port, array in arrays_of(name, mode, reference, seed).items():
            if port.startswith(("input.", "target.")):
                wanted_inputs[port], inputs[port] = array, tensor(array)
        wanted, found = run_plan(reference, wanted_inputs), executor(inputs)
        assert_close({n: numpy(t) for n, t in found.items()}, wanted, rtol)
        for output, port in reference.carried.items():
            wanted_inputs[port], inputs[port] = wanted[output], found[output]


@pytest.mark.parametrize("fused", [(), tuple(FUSED)], ids=["primitives", "fused"])
@pytest.mark.parametrize(("name", "mode"), CELLS)
def test_numpy_agrees_with_the_walk(name: str, mode: str, fused: tuple[str, ...]) -> None:
    executor = Executor(plan_of(name, mode, "float64", fused), NumpyKernels("float64"))
    reference = plan_of(name, mode, "float64")
    three_steps(name, mode, executor, reference, np.array, np.array, 1e-12)


@pytest.mark.parametrize(("name", "mode"), sampled(CELLS, SOME))
def test_tile_by_tile_agrees_with_the_walk(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "TILE", 75)
    test_numpy_agrees_with_the_walk(name, mode, tuple(FUSED))


@pytest.mark.parametrize(
    ("dtype", "rtol"), sampled([("float64", 1e-11), ("float32", 2e-3)], [("float64", 1e-11)])
)
@pytest.mark.parametrize(("name", "mode"), CELLS)
def test_torch_agrees_with_the_walk(name: str, mode: str, dtype: str, rtol: float) -> None:
    torch = pytest.importorskip("torch")
    from harness.backends.torch.executor_kernels import TorchKernels
    from harness.backends.torch.primitives import FUSED

    def tensor(array: Any) -> Any:
        floats = array.dtype == np.float64
        return torch.from_numpy(np.array(array, dtype if floats else array.dtype))

    executor = Executor(plan_of(name, mode, dtype, FUSED), TorchKernels(dtype, "cpu"))
    reference = plan_of(name, mode, "float64")
    three_steps(name, mode, executor, reference, tensor, lambda t: t.numpy(), rtol)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["lesson6/sequence_rnn", "lesson6/keras_gru"])
def test_what_is_not_finite_passes_as_in_the_walk(name: str, poison: float) -> None:
    plan = plan_of(name, "forward", "float64", FUSED)
    inputs = arrays_of(name, "forward", plan, 0)
    inputs["out.W"][3, 5] = poison
    assert_close(Executor(plan, NumpyKernels("float64"))(inputs), run_plan(plan, inputs), 1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 5, 70])
def test_loops_of_any_length_both_ways(length: int, reverse: bool) -> None:
    plan = loop_plan(length, reverse)
    random = np.random.default_rng(0)
    inputs = {n: random.normal(size=plan.shape(v)) for n, v in plan.inputs.items()}
    executor = Executor(plan, NumpyKernels("float64"))
    for _ in range(2):
        assert_close(executor(inputs), run_plan(plan, inputs), 1e-12)


def loop_plan(length: int, reverse: bool) -> Plan:
    """A loop that stacks what enters, what leaves, a slice, an outer value and a constant."""
    builder = Builder()
    row = (Dim(3), Dim(4))
    start, weight = builder.value(Type(row)), builder.value(Type((Dim(4), Dim(4))))
    sequence = builder.value(Type((Dim(length), *row)))
    entering, piece = builder.value(Type(row)), builder.value(Type(row))
    builder.begin()
    product = builder.emit("matmul", entering, weight)
    leaving = builder.emit("tanh", builder.emit("add", product, piece))
    zeros = builder.zeros(row)
    stacked = [
        leaving,
        entering,
        piece,
        start,
        zeros,
        builder.emit("permute_dims", leaving, axes=(1, 0)),
    ]
    body = builder.end([entering, piece], [leaving, *stacked])
    last, stacks = builder.scan(body, [start], [sequence], reverse=reverse)
    whole = builder.emit("flip", stacks[0], axis=0)
    names = {"start": start, "weight": weight, "sequence": sequence}
    results = {"start": last[0], "whole": whole, **{f"stack{i}": v for i, v in enumerate(stacks)}}
    carried = {"start": "start"}
    return Plan("loop", builder.types, {}, "float64", tuple(builder.nodes), names, results, carried)


def test_carried_values_may_change_places() -> None:
    builder = Builder()
    a, b = builder.value(Type((Dim(3),))), builder.value(Type((Dim(3),)))
    both = builder.emit("add", a, b)
    outputs = {"a": b, "b": a, "c": both, "old": a}
    names = {"a": a, "b": b, "c": builder.value(Type((Dim(3),)))}
    carried = {name: name for name in names}
    plan = Plan("swap", builder.types, {}, "float64", tuple(builder.nodes), names, outputs, carried)
    executor = Executor(plan, NumpyKernels("float64"))
    inputs = {n: np.arange(3.0) + i for i, n in enumerate(names)}
    for _ in range(3):
        wanted = run_plan(plan, {n: np.array(t) for n, t in inputs.items()})
        found = executor(inputs)
        assert_close(found, wanted, 0.0)
        inputs = {n: found[n] for n in names}


def test_memory_that_is_freed_too_early_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    assign = MemoryPlan._assign

    def early(memory: MemoryPlan) -> None:
        for index, instruction in reversed(list(enumerate(memory.instructions))):
            for view in instruction.reads():
                memory.lives[view.buffer].last = index  # of its reads, the first
        assign(memory)

    monkeypatch.setattr(MemoryPlan, "_assign", early)
    with pytest.raises(AssertionError):
        test_numpy_agrees_with_the_walk("lesson6/sequence_rnn", "train", ())


def square_plan() -> Plan:
    """exp(x) and what is added to its own transpose: each row needs all rows before."""
    builder = Builder()
    x = builder.value(Type((Dim(32), Dim(32))))
    y = builder.emit("exp", x)
    z = builder.emit("add", y, builder.emit("permute_dims", y, axes=(1, 0)))
    outputs = {"x": y, "z": z}
    return Plan(
        "square", builder.types, {}, "float64", tuple(builder.nodes), {"x": x}, outputs, {"x": "x"}
    )


def test_rows_that_need_other_rows_are_not_tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "TILE", 64)
    plan = square_plan()
    inputs = {"x": np.random.default_rng(0).normal(size=(32, 32))}
    assert_close(Executor(plan, NumpyKernels("float64"))(inputs), run_plan(plan, inputs), 1e-12)
    monkeypatch.setattr(tiling, "_by_rows", lambda a, b: True)
    with pytest.raises(AssertionError):
        assert_close(Executor(plan, NumpyKernels("float64"))(inputs), run_plan(plan, inputs), 1e-12)
