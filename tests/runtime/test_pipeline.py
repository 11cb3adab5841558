"""Whole steps as they are timed give what single calls of a session give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sampling import sampled
from wording import Wording

from harness.errors import UsageError
from harness.language.model import Spec, load_spec
from harness.oracle.draw import draw
from harness.runtime import plugins
from harness.runtime.answers import Arguments
from harness.runtime.backend import Backend
from harness.runtime.session import Session, make_session
from harness.runtime.step import Purpose
from harness.runtime.step_loop import Pipeline

BATCHES, BATCH, TIME, RATE = 4, 3, 5, 2.0**-6
SYSTEMS = ("stateful_lstm", "theano_gru", "three_char")
BACKENDS = ("numpy", "torch", "jax")
PATHS = ("native", "derived")


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return plugins.load(request.param)


@pytest.fixture(scope="module", params=SYSTEMS)
def spec(request: pytest.FixtureRequest) -> Spec:
    return load_spec(f"lesson6/{request.param}")


def small(spec: Spec) -> tuple[Any, Any]:
    known = {"vocab": 11, "factors": 5, "hidden": 7}
    sizes = {n: v for n, v in known.items() if n in spec.model.sizes}
    return spec.program("training", **sizes), spec.program("inference", **sizes)


def opened(
    backend: Backend, spec: Spec, path: Any, device: str = "cpu", dtype: str = "float64"
) -> tuple[Session, list[Arguments]]:
    backend.quick = True
    backend.use(device, dtype)
    training, inference = small(spec)
    session = make_session(backend, training, inference, path=path, dtype=dtype, rule=spec.update)
    return session, [draw(training, BATCH, TIME, seed) for seed in range(BATCHES)]


def pipeline(session: Session, purpose: Purpose, materials: list[Arguments]) -> Pipeline:
    first = materials[0]
    batches = [{"inputs": m.inputs, "targets": m.targets} for m in materials]
    return Pipeline(
        session, purpose, first.parameters, first.statistics, first.state, batches, RATE
    )


def trained(session: Session, materials: list[Arguments], steps: int) -> tuple[list[float], Any]:
    """The losses of single steps, and all that they leave."""
    first = materials[0]
    session.load(first.parameters, first.statistics)
    state: dict[str, Any] = first.state
    losses = []
    for index in range(steps):
        batch = materials[index % len(materials)]
        results = session.step(batch.inputs, state, batch.targets, RATE)
        state = {n: results[f"state.{n}"] for n in state}
        losses.append(float(results["loss"]))
    return losses, session.read()


def assert_same(found: Any, expected: Any, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if isinstance(array, dict):
            assert_same(found[name], array, tolerance)
        else:
            scale = float(np.max(np.abs(array), initial=0.0)) or 1.0
            np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance * scale)


def left(steps: Pipeline) -> dict[str, Any]:
    """What a session has a place for, of all that steps have left."""
    return {n: a for n, a in steps.parameters().items() if n != "others"}


@pytest.mark.parametrize("path", PATHS)
def test_training_is_that_of_single_steps(backend: Backend, spec: Spec, path: str) -> None:
    session, materials = opened(backend, spec, path)
    losses, after = trained(session, materials, 2 * BATCHES + 1)
    steps = pipeline(session, "train", materials)
    singly = [float(steps.finish(steps.start(i))["loss"]) for i in range(2 * BATCHES + 1)]
    np.testing.assert_allclose(singly, losses, rtol=1e-10)
    assert_same(left(steps), after, 1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_many_in_a_row_are_the_same_steps(backend: Backend, spec: Spec, path: str) -> None:
    session, materials = opened(backend, spec, path)
    losses, after = trained(session, materials, 2 * BATCHES + 1)
    steps = pipeline(session, "train", materials)
    last = steps.finish(steps.run(0, 2 * BATCHES + 1))
    np.testing.assert_allclose(float(last["loss"]), losses[-1], rtol=1e-10)
    assert_same(left(steps), after, 1e-6)
    steps.restart()
    steps.together = False
    assert steps.many == 1
    last = steps.finish(steps.run(0, 2 * BATCHES + 1))
    np.testing.assert_allclose(float(last["loss"]), losses[-1], rtol=1e-10)


@pytest.mark.parametrize("path", PATHS)
def test_a_forward_pass_hands_its_state_on(backend: Backend, spec: Spec, path: str) -> None:
    session, materials = opened(backend, spec, path)
    first = materials[0]
    session.load(first.parameters, first.statistics)
    state: dict[str, Any] = first.state
    for material in materials:
        expected = session.forward("inference", material.inputs, state)
        state = {n: expected[f"state.{n}"] for n in state}
    steps = pipeline(session, "forward", materials)
    found = [steps.finish(steps.start(i)) for i in range(BATCHES)][-1]
    assert found
    assert_same(found, {n: expected[n] for n in found}, 1e-11)


@pytest.mark.parametrize("path", PATHS)
def test_all_that_goes_on_is_told(backend: Backend, path: str) -> None:
    session, materials = opened(backend, load_spec("lesson6/stateful_lstm"), path)
    steps = pipeline(session, "train", materials)
    steps.finish(steps.run(0, BATCHES))
    others = steps.parameters()["others"]
    assert {"state.h", "state.c"} <= others.keys()
    assert all(np.ptp(others[f"state.{n}"]) > 0 for n in "hc")
    assert others.get("step", BATCHES + 1.0) == BATCHES + 1.0


@pytest.mark.parametrize("purpose", ["train", "forward"])
def test_results_of_each_step_of_a_call_are_there(
    backend: Backend, purpose: Purpose, wording: Wording
) -> None:
    session, materials = opened(backend, load_spec("lesson6/stateful_lstm"), "derived")
    backend.quick = False  # where steps are not compiled, several are not one call
    steps = pipeline(session, purpose, materials)
    singly = [steps.finish(steps.start(i)) for i in range(2 * BATCHES)]
    steps.restart()
    last = steps.finish(steps.run(0, 2 * BATCHES))
    assert_same(last, singly[-1], 1e-11)
    for back in range(steps.many):
        assert_same(steps.last(back), singly[-1 - back], 1e-11)
    with wording.raises(UsageError):
        steps.last(steps.many)


def test_batches_beside_others(backend: Backend) -> None:
    session, materials = opened(backend, load_spec("lesson6/three_char"), "derived")
    steps = pipeline(session, "forward", materials)
    batches = [{"inputs": m.inputs, "targets": m.targets} for m in materials]

    def first() -> Any:
        return steps.finish(steps.start(0))

    known, other = first(), steps.finish(steps.start(1))
    for turned in (batches[1:2] + batches[1:], batches[1:] + batches[:1]):
        steps.feed(turned, beside=True)
        assert_same(first(), other, 0)
        steps.turn(0)
        assert_same(first(), known, 0)


@pytest.mark.parametrize("path", PATHS)
def test_restart_feed_and_overhead_leave_no_trace(backend: Backend, path: str) -> None:
    session, materials = opened(backend, load_spec("lesson6/stateful_lstm"), path)
    steps = pipeline(session, "train", materials)
    first = float(steps.finish(steps.start(0))["loss"])
    assert 0 < steps.overhead(10) < 0.1
    assert float(steps.finish(steps.start(0))["loss"]) == first
    steps.feed([{"inputs": m.inputs, "targets": m.targets} for m in materials[1:2]])
    steps.restart()
    assert float(steps.finish(steps.start(0))["loss"]) != first
    steps.feed([{"inputs": m.inputs, "targets": m.targets} for m in materials])
    steps.restart()
    assert float(steps.finish(steps.start(0))["loss"]) == first


def test_no_batches_and_no_optimizer_are_said_in_words(backend: Backend, wording: Wording) -> None:
    session, materials = opened(backend, load_spec("lesson6/three_char"), "native")
    with wording.raises(UsageError):
        Pipeline(session, "train", materials[0].parameters, materials[0].statistics, {}, [], RATE)
    session.use_rule(None)
    with pytest.raises(UsageError, match="no optimizer"):
        pipeline(session, "train", materials)


@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", sampled(("float32", "bfloat16", "float16"), ["bfloat16"]))
def test_lower_precisions_train(name: str, path: str, dtype: str) -> None:
    backend = plugins.load(name)
    session, materials = opened(backend, load_spec("lesson6/stateful_lstm"), path, dtype=dtype)
    steps = pipeline(session, "train", materials)
    losses = [float(steps.finish(steps.start(i))["loss"]) for i in range(3)]
    exact, more = opened(plugins.load("numpy"), load_spec("lesson6/stateful_lstm"), "derived")
    expected, _ = trained(exact, more, 3)
    allowed = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.01}[dtype]
    np.testing.assert_allclose(losses, expected, rtol=allowed)
    assert losses != expected
    kept = steps.parameters()["parameters"].values()
    assert {array.dtype for array in kept} == {np.dtype(np.float32)}


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_training_on_a_gpu(name: str, path: str, system: str) -> None:
    backend = plugins.load(name)
    if "cuda" not in backend.devices():
        pytest.skip("there is no CUDA device")
    spec = load_spec(f"lesson6/{system}")
    session, materials = opened(backend, spec, path, "cuda")
    steps = pipeline(session, "train", materials)
    losses = [float(steps.finish(steps.start(i))["loss"]) for i in range(BATCHES)]
    exact, more = opened(plugins.load("numpy"), spec, "derived")
    np.testing.assert_allclose(losses, trained(exact, more, BATCHES)[0], rtol=1e-9)


@pytest.mark.parametrize("path", ["native", "derived"])
def test_a_forward_pass_begins_anew_in_the_same_memory(backend: Backend, path: str) -> None:
    """Where tensors can be written to: what is bound to them is not to be bound anew."""
    session, materials = opened(backend, load_spec("lesson6/stateful_lstm"), path)
    steps = pipeline(session, "forward", materials)
    before = {name: id(tensor) for name, tensor in steps._carry.fixed.items()}
    assert before
    other = draw(session.programs["training"], BATCH, TIME, 7)
    steps.restart(other.parameters)
    found = steps.finish(steps.run(0, BATCHES))
    after = {name: id(tensor) for name, tensor in steps._carry.fixed.items()}
    assert (after == before) == backend.rewrites
    fresh = pipeline(
        session, "forward", [replace(m, parameters=other.parameters) for m in materials]
    )
    assert_same(found, fresh.finish(fresh.run(0, BATCHES)), 1e-15)
    steps.restart()
    again = pipeline(session, "forward", materials)
    assert_same(steps.finish(steps.run(0, 2)), again.finish(again.run(0, 2)), 1e-15)
