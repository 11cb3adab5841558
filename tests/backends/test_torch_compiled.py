"""Whole plans and torch's own layers through torch.compile give what they give without it, and
where they cannot, why."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sampling import sampled
from wording import Wording

from harness.errors import UsageError
from harness.language.model import load_spec
from harness.oracle.draw import draw
from harness.program.plan import Plan, forward_plan, training_plan
from harness.runtime import plugins
from harness.runtime.backend import Backend
from harness.runtime.native import Tensors
from harness.runtime.session import make_session
from harness.runtime.step import Purpose
from harness.runtime.step_loop import Pipeline

BATCHES, BATCH, TIME, STEPS, RATE = 2, 3, 4, 5, 2.0**-6
# What is smaller is rounding alone: a bias of keys, on which no output depends, has no digits.
ROUNDING = 1e-10
SIZES = {"vocab": 11, "factors": 5, "hidden": 7}
CASES = [
    (name, purpose)
    for name in ("lesson6/stateful_lstm", "lesson6/three_char", "lesson6/theano_gru", "mamba")
    for purpose in ("train", "forward")
]


@pytest.fixture(scope="module")
def torch() -> Backend:
    backend = plugins.load("torch")
    if "compiled" not in backend.compiles:
        pytest.skip("there is no compiler of C++")
    return backend


def ended(torch: Backend, name: str, purpose: Purpose, path: str) -> tuple[Any, Any]:
    """The last results of some steps, and what they leave."""
    torch.use("cpu", "float64")
    spec = load_spec(name)
    sizes = {n: v for n, v in SIZES.items() if n in spec.model.sizes}
    programs = [spec.program(phase, **sizes) for phase in ("training", "inference")]
    session = make_session(torch, *programs, path=path, dtype="float64", rule=spec.update)
    drawn = [draw(programs[0], BATCH, TIME, seed) for seed in range(BATCHES)]
    batches = [{"inputs": m.inputs, "targets": m.targets} for m in drawn]
    first = drawn[0]
    steps = Pipeline(
        session, purpose, first.parameters, first.statistics, first.state, batches, RATE
    )
    return steps.finish(steps.run(0, STEPS)), steps.parameters()


def apart(found: Any, wanted: Any) -> float:
    """The largest difference of any two entries, in the largest entry."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        return max((apart(found[n], wanted[n]) for n in wanted), default=0.0)
    arrays = [np.asarray(one, float) for one in (found, wanted)]
    most = max(float(np.max(np.abs(array), initial=0.0)) for array in arrays)
    if most < ROUNDING:
        return 0.0
    return float(np.max(np.abs(arrays[0] - arrays[1]), initial=0.0)) / most


@pytest.mark.parametrize(("name", "purpose"), sampled(CASES, [CASES[3]]))
def test_steps_are_those_of_the_executor(torch: Backend, name: str, purpose: Purpose) -> None:
    found, wanted = (ended(torch, name, purpose, path) for path in ("compiled", "derived"))
    assert apart(found[0], wanted[0]) < 1e-12
    assert apart(found[1], wanted[1]) < 1e-9


def plan(time: int) -> Plan:
    program = load_spec("lesson6/theano_gru").program("inference", vocab=11, hidden=7)
    return forward_plan(program, {**program.sizes, "batch": 2, "time": time}, "float32", ())


def test_what_would_take_minutes_is_refused(torch: Backend, wording: Wording) -> None:
    torch.use("cpu", "float32")
    with wording.raises(UsageError, "derived"):
        torch.compile_plan(plan(time=1000))


def test_large_windows_that_overlap_are_refused(torch: Backend, wording: Wording) -> None:
    torch.use("cpu", "float32")
    spec = load_spec("lenet")
    program = spec.program("training")
    sizes = {**program.sizes, "batch": 2}
    assert spec.update is not None
    images = training_plan(program, spec.update, sizes, "float32", (), learning_rate=RATE)
    with wording.raises(UsageError, "25 ... 4"):
        torch.compile_plan(images)


def test_without_a_compiler_it_is_refused(
    torch: Backend, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    torch.use("cpu", "float32")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with wording.raises(UsageError, "C++ ... (g++ ... clang++"):
        torch.compile_plan(plan(time=3))


def test_a_backend_without_one_says_so(wording: Wording) -> None:
    numpy = plugins.load("numpy")
    assert not numpy.compiles
    with wording.raises(UsageError, "numpy"):
        numpy.compile_plan(plan(time=3))
    with wording.raises(UsageError, "numpy"):
        numpy.compile_native(lambda variables, constants: variables)


@pytest.mark.parametrize(
    ("name", "purpose"),
    sampled(
        # unet has pools of windows, whose derivative by autograd, compiled, ended the process.
        [
            (n, p)
            for n in ("lenet", "unet", "gpt", "lesson6/three_char")
            for p in ("train", "forward")
        ],
        [("lenet", "train"), ("unet", "train"), ("gpt", "forward")],
    ),
)
def test_steps_of_torchs_own_layers_are_those_without_a_compiler(
    torch: Backend, name: str, purpose: Purpose
) -> None:
    found, wanted = (ended(torch, name, purpose, path) for path in ("native-compiled", "native"))
    assert apart(found[0], wanted[0]) < 1e-12
    assert apart(found[1], wanted[1]) < 1e-9


def test_a_model_without_a_layer_of_torchs_own_is_refused(
    torch: Backend, tmp_path: Path, wording: Wording
) -> None:
    file = tmp_path / "plain.yaml"
    file.write_text(
        "model: plain\nsummary: s\nsource: t\nsizes: {vocab: 3}\n"
        "inputs:\n  x: {shape: [batch, vocab]}\n"
        "layers: {}\n"
        "equations: y = exp(x) * 0.5\n"
    )
    with wording.raises(UsageError, "torch ... compiled"):
        ended(torch, str(file), "forward", "native-compiled")


def test_a_function_of_too_many_calls_is_refused_at_its_first(torch: Backend) -> None:
    torch.use("cpu", "float32")

    def long(variables: Tensors, constants: Tensors) -> Tensors:
        x = variables["x"]
        for _ in range(1501):
            x = x + constants["y"]
        return {"x": x}

    function = torch.compile_native(long)
    number = torch.tensor(np.ones(2, "f4"))
    with pytest.raises(UsageError, match=r"makes 1,501 calls of torch; .* use the path native"):
        function({"x": number}, {"y": number})


def test_what_the_compiler_cannot_take_is_refused_in_words(
    torch: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    inductor = pytest.importorskip("torch._inductor")
    errors = pytest.importorskip("torch._dynamo.exc")

    def refuse(*_: Any) -> Any:
        raise errors.TorchDynamoException("no such kernel\nas it were")

    monkeypatch.setattr(inductor, "compile", refuse)
    torch.use("cpu", "float32")
    function = torch.compile_native(lambda variables, constants: {"x": variables["a"] * 3.25})
    with pytest.raises(UsageError, match=r"cannot compile this step \(no such kernel\): use ano"):
        function({"a": torch.tensor(np.ones(7, "f4"))}, {})


@pytest.mark.parametrize("count", [1, 4, 8, 9])
def test_rows_are_put_in_order_as_torch_does(torch: Backend, count: int) -> None:
    """Of entries that tie the first comes first, and what is no number last, however short."""
    torch.use("cpu", "float32")
    rows = [0.0, -0.0, 2.0, np.nan, -np.inf, 2.0, np.inf, np.nan, 1.0]
    drawn = np.random.default_rng(0).choice(rows, (50, count)).astype("f4")
    argsort = torch.primitives["argsort"]
    function = torch.compile_native(lambda variables, constants: {"i": argsort(variables["x"])})
    found = torch.numpy(function({"x": torch.tensor(drawn)}, {})["i"])
    np.testing.assert_array_equal(found, np.argsort(drawn, -1, kind="stable"))


def test_what_it_makes_lies_as_what_it_was_given(torch: Backend) -> None:
    """So that it can be given again, to what was compiled for that."""
    torch.use("cpu", "float32")

    def turned(variables: Tensors, constants: Tensors) -> Tensors:
        return {"x": torch.primitives["permute_dims"](variables["x"] + 1.0, axes=(1, 0))}

    function, array = torch.compile_native(turned), np.arange(9, dtype="f4").reshape(3, 3)
    made = function(function({"x": torch.tensor(array)}, {}), {})
    np.testing.assert_array_equal(torch.numpy(made["x"]), array + 2)


def test_a_function_may_be_given_its_tensors_in_any_order(torch: Backend) -> None:
    torch.use("cpu", "float32")

    def apart(variables: Tensors, constants: Tensors) -> Tensors:
        return {"x": variables["a"] - constants["c"] * variables["b"]}

    function = torch.compile_native(apart)
    a, b, c = (torch.tensor(np.full(2, n, "f4")) for n in (1, 2, 3))
    for variables in ({"a": a, "b": b}, {"b": b, "a": a}):
        np.testing.assert_array_equal(torch.numpy(function(variables, {"c": c})["x"]), [-5, -5])
