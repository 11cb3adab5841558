"""How an executor takes its inputs: in place, from elsewhere, in any order of axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plan_runs import arrays_of, assert_close, plan_of, run_plan

from harness.backends.numpy.executor_kernels import NumpyKernels
from harness.backends.numpy.fused import FUSED
from harness.runtime import executor
from harness.runtime.executor import Executor


def test_inputs_are_never_written_and_results_go_round() -> None:
    plan = plan_of("lesson6/stateful_lstm", "train", "float64", FUSED)
    executor = Executor(plan, NumpyKernels("float64"))
    inputs = arrays_of("lesson6/stateful_lstm", "train", plan, 0)
    before = {n: a.copy() for n, a in inputs.items()}
    first = executor(inputs)
    for name, array in before.items():
        np.testing.assert_array_equal(inputs[name], array, err_msg=name)
    second = executor({**inputs, **{i: first[o] for o, i in plan.carried.items()}})
    assert all(second[name] is first[name] for name in plan.carried)


def test_inputs_in_another_order_of_axes_are_read_anew() -> None:
    plan = plan_of("lesson6/keras_gru", "forward", "float64", FUSED)
    executor = Executor(plan, NumpyKernels("float64"))
    inputs = arrays_of("lesson6/keras_gru", "forward", plan, 0)
    inputs["input.chars"] = np.asfortranarray(inputs["input.chars"])
    for _ in range(2):
        assert_close(executor(inputs), run_plan(plan, inputs), 1e-12)
        inputs["input.chars"] *= 0.5
    with pytest.raises(ValueError, match=r"expected float64 \[8, 6, 86\], found float32"):
        executor({**inputs, "input.chars": inputs["input.chars"].astype(np.float32)})


def test_a_missing_input_is_named() -> None:
    plan = plan_of("lesson6/sequence_rnn", "forward", "float64")
    inputs = arrays_of("lesson6/sequence_rnn", "forward", plan, 0)
    del inputs["rnn.U"]
    with pytest.raises(KeyError, match=r"rnn\.U"):
        Executor(plan, NumpyKernels("float64"))(inputs)


def test_batches_that_rotate_are_bound_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few sets of inputs have calls of their own; all others share those on a copy."""
    monkeypatch.setattr(executor, "KEPT", 2)
    plan = plan_of("lesson6/sequence_rnn", "forward", "float64", FUSED)
    batches = [arrays_of("lesson6/sequence_rnn", "forward", plan, seed) for seed in range(4)]
    for batch in batches[1:]:
        batch |= {n: a for n, a in batches[0].items() if n != "input.chars"}
    made = Executor(plan, NumpyKernels("float64"))
    bound: list[Any] = []
    bind = made._calls_on
    monkeypatch.setattr(made, "_calls_on", lambda flats: bound.append(flats) or bind(flats))
    for index, count in ((0, 1), (1, 2), (0, 2), (2, 3), (1, 3), (3, 3), (2, 3), (0, 3)):
        assert_close(made(batches[index]), run_plan(plan, batches[index]), 1e-12)
        assert len(bound) == count, f"batch {index}"


def test_inputs_that_change_in_place_are_read_anew() -> None:
    plan = plan_of("lesson6/sequence_rnn", "forward", "float64", FUSED)
    inputs = arrays_of("lesson6/sequence_rnn", "forward", plan, 0)
    made = Executor(plan, NumpyKernels("float64"))
    for _ in range(2):
        assert_close(made(inputs), run_plan(plan, inputs), 1e-12)
        inputs["input.chars"][...] = (inputs["input.chars"] + 1) % 86


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_an_input_may_be_a_part_of_something_larger(framework: str) -> None:
    """Batches lie one after the other in memory that is written to once for all of them."""
    plan = plan_of("lesson6/keras_gru", "forward", "float64", FUSED)
    batches = [arrays_of("lesson6/keras_gru", "forward", plan, seed) for seed in range(3)]
    stacked = {n: np.stack([b[n] for b in batches]) for n in batches[0]}
    make: Any = np.asarray
    kernels: Any = NumpyKernels("float64")
    if framework == "torch":
        make = pytest.importorskip("torch").from_numpy
        from harness.backends.torch.executor_kernels import TorchKernels

        kernels = TorchKernels("float64", "cpu")
    whole = {n: make(array) for n, array in stacked.items()}
    executor = Executor(plan, kernels)
    for index, batch in enumerate(batches):
        found = executor({n: tensor[index] for n, tensor in whole.items()})
        assert_close({n: np.asarray(t) for n, t in found.items()}, run_plan(plan, batch), 1e-11)
