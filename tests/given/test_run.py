"""``harness.run``: a user's own numbers through a backend or the oracle, in one call."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import DOCS
from safetensors.numpy import save_file
from wording import Wording

import harness
from harness.convert import weights
from harness.convert.weights import Weights
from harness.errors import HarnessError, UsageError
from harness.given.run import BackendError
from harness.language.initial_values import initial_parameters, initial_statistics
from harness.language.model import fingerprint
from harness.oracle.case import Case

SPEC = "lesson6/stateful_lstm"
SIZES = {"vocab": 20, "factors": 3, "hidden": 4}
BATCH, TIME = 2, 5


def numbers(seed: int = 0) -> dict[str, Any]:
    """Inputs and targets of another batch and length than the checks draw."""
    random = np.random.default_rng(seed)
    return {
        "inputs": {"chars": random.integers(0, 20, (BATCH, TIME))},
        "targets": {"target": random.integers(0, 20, (BATCH, TIME))},
        "sizes": SIZES,
    }


def parameters(seed: int = 3) -> dict[str, Any]:
    found = initial_parameters(harness.load(SPEC).program("training", **SIZES), seed)
    random = np.random.default_rng(seed)
    return {name: random.normal(size=array.shape) for name, array in found.items()}


@pytest.fixture(scope="module")
def oracle() -> Any:
    return harness.run(SPEC, "oracle", parameters=parameters(), **numbers())


def test_shapes_names_and_paths(oracle: Any) -> None:
    assert oracle.sizes == {**SIZES, "batch": BATCH, "time": TIME}
    assert {n: a.shape for n, a in oracle.outputs.items()}["logits"] == (2, 5, 20)
    assert {n: a.shape for n, a in oracle.state.items()} == {"h": (2, 4), "c": (2, 4)}
    trained = {name: a.shape for name, a in parameters().items()}
    assert {n: oracle.gradients[n].shape for n in trained} == trained
    assert set(oracle.gradients) - set(trained) == {"state.h", "state.c"}
    assert isinstance(oracle.loss, float)
    assert set(oracle.paths.values()) == {"equations"}
    assert type(oracle.outputs["logits"]) is np.ndarray


def test_the_oracle_is_that_of_the_checks() -> None:
    case = Case(harness.load(SPEC), SIZES, BATCH, TIME)
    material = case.material
    found = harness.run(
        SPEC,
        "oracle",
        parameters={**material.parameters, **material.statistics},
        inputs=material.inputs,
        state=material.state,
        targets=material.targets,
        sizes=SIZES,
    )
    expected = case.gradients(material, "main").values
    assert found.loss == expected["loss"]
    for prefix, group in (("output", "outputs"), ("state", "state"), ("gradient", "gradients")):
        for name, array in getattr(found, group).items():
            np.testing.assert_array_equal(array, expected[f"{prefix}.{name}"])


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_backend_gives_what_the_oracle_gives(backend: str, dtype: str, oracle: Any) -> None:
    found = harness.run(SPEC, backend, parameters=parameters(), dtype=dtype, **numbers())
    near = {"rtol": 1e-12, "atol": 1e-13} if dtype == "float64" else {"rtol": 1e-4, "atol": 1e-5}
    assert found.loss == pytest.approx(oracle.loss, rel=near["rtol"])
    for group in ("outputs", "state", "statistics", "gradients"):
        ours, theirs = getattr(found, group), getattr(oracle, group)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name].dtype == dtype
            np.testing.assert_allclose(ours[name], theirs[name], **near)
    assert set(found.paths) == set(oracle.paths)
    if backend == "torch":
        assert set(found.paths.values()) != {"equations"}
    equations = harness.run(SPEC, backend, path="equations", want=["outputs"], **numbers())
    assert set(equations.paths.values()) == {"equations"}


def test_what_is_left_out_is_as_at_the_start(oracle: Any) -> None:
    given = numbers()
    drawn = harness.run(SPEC, "oracle", seed=3, **given)
    first = initial_parameters(harness.load(SPEC).program("training", **SIZES), 3)
    zeros = {n: np.zeros((BATCH, 4)) for n in ("h", "c")}
    named = harness.run(SPEC, "oracle", parameters=first, state=zeros, **given)
    other = harness.run(SPEC, "oracle", seed=4, **given)
    assert drawn.loss == named.loss != other.loss


def test_state_is_taken_and_given() -> None:
    """Two halves with the state between them are the whole."""
    given, own = numbers(), parameters()
    chars = given["inputs"]["chars"]
    call: dict[str, Any] = {"parameters": own, "want": ["outputs"], "sizes": SIZES}
    call["phase"] = "inference"  # in training a batch is normalised by itself
    whole = harness.run(SPEC, "oracle", inputs={"chars": chars}, **call)
    first = harness.run(SPEC, "oracle", inputs={"chars": chars[:, :2]}, **call)
    second = harness.run(SPEC, "oracle", inputs={"chars": chars[:, 2:]}, state=first.state, **call)
    for name, array in whole.outputs.items():
        np.testing.assert_allclose(second.outputs[name], array[:, 2:], rtol=1e-13)


def test_only_what_is_wanted_is_returned() -> None:
    given = numbers()
    loss = harness.run(SPEC, "oracle", want=("loss",), **given)
    assert loss.loss is not None
    assert not loss.outputs
    assert not loss.gradients
    del given["targets"]
    outputs = harness.run(SPEC, "oracle", want=("outputs",), **given)
    assert outputs.loss is None
    assert outputs.outputs


def test_lists_and_small_integers_are_numbers() -> None:
    lists = {n: {k: a.tolist() for k, a in numbers()[n].items()} for n in ("inputs", "targets")}
    small = {n: {k: a.astype(np.uint8) for k, a in numbers()[n].items()} for n in lists}
    losses = [
        harness.run(SPEC, "oracle", want=("loss",), sizes=SIZES, **given).loss
        for given in (lists, small)
    ]
    assert losses == [harness.run(SPEC, "oracle", want=("loss",), **numbers()).loss] * 2


@pytest.mark.parametrize("backend", ["oracle", "numpy"])
def test_phases_differ_where_a_layer_does(backend: str) -> None:
    found = [
        harness.run(SPEC, backend, phase=phase, **numbers()) for phase in ("training", "inference")
    ]
    assert not np.allclose(found[0].outputs["logits"], found[1].outputs["logits"])
    assert not np.allclose(found[0].gradients["out.b"], found[1].gradients["out.b"])
    start = harness.load(SPEC).program("training", **SIZES)
    for name, array in initial_statistics(start).items():
        assert not np.array_equal(found[0].statistics[name], array)
        np.testing.assert_array_equal(found[1].statistics[name], array)


def test_nan_and_infinity_go_through() -> None:
    own = parameters()
    own["out.b"] = np.full_like(own["out.b"], np.nan)
    for backend in ("oracle", "numpy"):
        assert np.isnan(harness.run(SPEC, backend, parameters=own, **numbers()).loss)


def test_parameters_of_files(tmp_path: Path, oracle: Any, wording: Wording) -> None:
    """Those that train writes have sizes; a plain safetensors file has names only."""
    spec, own = harness.load(SPEC), parameters()
    program = spec.program("training", **SIZES)
    moving = initial_statistics(program)
    made = Weights(SPEC, fingerprint(spec), dict(program.sizes), own, moving)
    weights.save(tmp_path / "ours.safetensors", made)
    call = {"parameters": tmp_path / "ours.safetensors", **numbers()}
    assert harness.run(SPEC, "oracle", **call).loss == oracle.loss
    assert harness.run(SPEC, "oracle", **call | {"sizes": {}}).loss == oracle.loss
    with wording.raises(UsageError, "hidden=4 ... hidden=5"):
        harness.run(SPEC, "oracle", **call | {"sizes": {"hidden": 5}})
    save_file(own, tmp_path / "plain.safetensors")
    found = harness.run(SPEC, "oracle", parameters=tmp_path / "plain.safetensors", **numbers())
    assert found.loss == oracle.loss


def test_a_batch_of_a_file(tmp_path: Path, oracle: Any, wording: Wording) -> None:
    given, path = numbers(), tmp_path / "x.npz"
    state = {n: np.zeros((BATCH, 4)) for n in ("h", "c")}
    np.savez(
        path,
        **given["inputs"],
        **{f"target.{n}": a for n, a in given["targets"].items()},
        **{f"state.{n}": a for n, a in state.items()},
    )
    call: dict[str, Any] = {"parameters": parameters(), "sizes": SIZES}
    assert harness.run(SPEC, "oracle", inputs=path, **call).loss == oracle.loss
    with wording.raises(UsageError):
        harness.run(SPEC, "oracle", inputs=path, targets=given["targets"], **call)


def changed(group: str, **arrays: Any) -> Callable[[dict[str, Any]], None]:
    def change(given: dict[str, Any]) -> None:
        given[group] = {**(given.get(group) or {}), **arrays}

    return change


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda given: given.pop(name)


def option(**options: Any) -> Callable[[dict[str, Any]], None]:
    return lambda given: given.update(options)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "unknown input": (changed("inputs", chras=[[1]]), r"unknown input 'chras' \(known: chars\)"),
    "axes": (changed("inputs", chars=[1, 2]), r"input.chars: expected shape \[batch, time\]"),
    "index": (
        changed("inputs", chars=[[1, 20]]),
        r"input.chars\[0, 1\] is 20; allowed are 0 to 19",
    ),
    "negative": (
        changed("inputs", chars=[[-1, 2]]),
        r"input.chars\[0, 0\] is -1; allowed are 0 to",
    ),
    "floats": (changed("inputs", chars=[[0.5]]), r"input.chars: expected integers, found float64"),
    "text": (
        changed("inputs", chars=[["a"]]),
        r"input 'chars' is not an array of numbers, found <U",
    ),
    "complex": (changed("inputs", chars=[[1j]]), r"not an array of numbers, found complex128"),
    "ragged": (changed("inputs", chars=[[1], [2, 3]]), r"input 'chars' is not an array"),
    "no mapping": (
        option(inputs=[[1]]),
        r"inputs must be a mapping from names to arrays, found list",
    ),
    "no inputs": (without("inputs"), r"inputs are missing \(needed: chars\)"),
    "no targets": (without("targets"), r"a loss needs targets \(missing: target\): give them, or"),
    "batches": (changed("targets", target=[[1] * TIME]), r"target.target: axis 0 is batch = 2, fo"),
    "a parameter": (option(parameters={"out.b": [0.0]}), r"parameter '.+' is missing"),
    "half a state": (option(state={"h": np.zeros((2, 4))}), r"state 'c' is missing"),
    "state": (option(state={"h": np.zeros((3, 4)), "c": np.zeros((2, 4))}), r"state.h: axis 0 is"),
    "want": (option(want=("gradient",)), r"unknown want 'gradient'; did you mean 'gradients'"),
    "want text": (option(want="los"), r"unknown want 'los'; did you mean 'loss'"),
    "want nothing": (option(want=()), r"want must list one or more of"),
    "dtype": (option(dtype="float16"), r"unknown dtype 'float16'"),
    "oracle's dtype": (option(dtype="float32"), r"the oracle always runs in float64"),
    "path": (option(path="nativ"), r"unknown path 'nativ'; did you mean 'native'"),
    "phase": (option(phase="train"), r"unknown phase 'train'; did you mean 'training'"),
    "size": (option(sizes={"hiden": 3}), r"no size 'hiden'; did you mean 'hidden'"),
    "other sizes": (
        option(sizes={}, parameters=parameters()),
        r"at vocab=.*other sizes, give these",
    ),
    "batch asked for": (
        option(sizes={**SIZES, "batch": 7}),
        r"arrays have batch 2, but batch=7 .*: omit",
    ),
    "no file": (
        option(inputs="no/such.npz"),
        r"cannot read the inputs 'no/such.npz': no such file",
    ),
    "no weights": (option(parameters="no/such.st"), r"cannot read the weights 'no/such.st'"),
    "seed": (option(seed=-1), r"a seed must be a whole number"),
    "timeout": (option(timeout=0.0), r"a timeout must be a positive number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_words(name: str) -> None:
    change, words = WRONG[name]
    given = numbers()
    change(given)
    with pytest.raises(HarnessError, match=words):
        harness.run(SPEC, "oracle", **given)


def test_a_backend_that_cannot_is_told(wording: Wording) -> None:
    with wording.raises(UsageError, "'nump' ... 'numpy'"):
        harness.run(SPEC, "nump", **numbers())
    with wording.raises(UsageError, "'cuda:7'"):
        harness.run(SPEC, "numpy", device="cuda:7", **numbers())
    with pytest.raises(BackendError, match="numpy: start"):
        harness.run(SPEC, "numpy", python="/bin/false", **numbers())


def test_the_example_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    program = harness.load("lesson6/simple_rnn").programs["training"]
    save_file(initial_parameters(program, 1), "rnn.safetensors")
    page = (DOCS / "given-numbers.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(block, {})
    losses, gap, paths = capsys.readouterr().out.splitlines()
    true, ours = map(float, losses.split())
    assert ours == pytest.approx(true, rel=1e-5)
    assert 0 < float(gap) < 1e-5
    assert "rnn" in paths
