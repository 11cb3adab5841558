"""Which models of the Lesson 6 notebook are the same function, and the size of its bugs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import notebook_rnn
import numpy as np
import pytest

from harness.language.initial_values import initial_parameters
from harness.language.model import load_spec
from harness.oracle import oracle
from harness.program.autodiff.differentiate import differentiate
from harness.program.ir import Port, Program
from harness.text import corpus, vocabulary

FREE = {"batch": 2, "time": 5}
RELU = "function: relu\nsummary: s\nsource: s\ninputs: {x: [...]}\nequations: y = %s\noutput: y\n"


def environment(program: Program, arrays: Mapping[str, Any]) -> dict[int, Any]:
    ports = (*program.inputs, *program.targets, *program.parameters)
    return {p.value: np.asarray(arrays[p.name]) for p in ports}


def normals(program: Program, free: Mapping[str, int] = FREE) -> dict[str, Any]:
    """Random material for all float ports."""
    rng = np.random.default_rng(0)
    ports = (*program.inputs, *program.targets, *program.parameters)
    floats = [p for p in ports if program.type_of(p).kind == "float"]
    return {p.name: rng.normal(size=program.shape(p, free)) * 0.5 for p in floats}


def outputs(
    program: Program, arrays: Mapping[str, Any], free: Mapping[str, int] = FREE
) -> dict[str, Any]:
    env = environment(program, arrays)
    found = oracle.run(program.nodes, env, {**program.sizes, **free})
    return {p.name: found[p.value] for p in program.outputs}


def gradients(program: Program, arrays: Mapping[str, Any], free: Mapping[str, int]) -> Any:
    """The gradient of the loss by parameter name."""
    assert program.loss is not None
    derived = differentiate(program, [Port("loss", program.loss)], program.parameters)
    env = {**environment(program, arrays), derived.seeds[0].value: np.float64(1)}
    found = oracle.run(derived.program.nodes, env, {**program.sizes, **free})
    return {p.name: found[p.value] for p in derived.gradients}


# --- The two GRUs -----------------------------------------------------------------------------


def combined(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of theano_gru, the recurrent rows of each gate above those of the input."""
    result = {n: a for n, a in arrays.items() if not n.startswith(("gru.W", "gru.U"))}
    for gate in "zrn":
        result[f"gru.K_{gate}"] = np.vstack([arrays[f"gru.U_{gate}"], arrays[f"gru.W_{gate}"]])
    return result


def one_by_one(a: Any, b: Any) -> Any:
    """A matrix product that adds its terms in order, as no BLAS promises to."""
    total = np.zeros((*a.shape[:-1], b.shape[-1]))
    for k in range(a.shape[-1]):
        total = total + a[..., k, None] * b[k]
    return total


SIZES = pytest.mark.parametrize("sizes", [{"vocab": 11, "hidden": 7}, {}], ids=["small", "own"])


@SIZES
def test_the_two_grus_agree_to_rounding(sizes: dict[str, int]) -> None:
    separate = load_spec("lesson6/theano_gru").program(**sizes)
    joined = load_spec("lesson6/theano_gru_combined").program(**sizes)
    arrays = normals(separate)
    expected, found = outputs(separate, arrays), outputs(joined, combined(arrays))
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=5e-15 * np.max(np.abs(array)))
    crossed = combined(arrays)
    crossed["gru.K_z"], crossed["gru.K_r"] = crossed["gru.K_r"], crossed["gru.K_z"]
    assert np.max(np.abs(outputs(joined, crossed)["logits"] - expected["logits"])) > 0.01


@SIZES
@pytest.mark.parametrize(("inputs", "biases", "same"), [
    ("one-hot", "zero", True),
    ("one-hot", "random", False),
    ("dense", "zero", False),
])  # fmt: skip
def test_when_the_two_grus_agree_to_the_last_bit(
    monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int], inputs: str, biases: str, same: bool
) -> None:
    """The notebook's case, one-hot rows and no bias yet, only swaps the two terms of one sum.

    A bias is added between the two products in one model and after both in the other, and a
    dense row has more than one term: then the rounding differs.
    """
    monkeypatch.setitem(oracle.TABLE, "matmul", one_by_one)  # type: ignore[arg-type]
    separate = load_spec("lesson6/theano_gru").program(**sizes)
    joined = load_spec("lesson6/theano_gru_combined").program(**sizes)
    arrays = normals(separate)
    if inputs == "one-hot":
        classes = separate.sizes["vocab"]
        arrays["chars"] = np.eye(classes)[np.arange(10).reshape(2, 5) * 7 % classes]
    if biases == "zero":
        arrays |= {n: np.zeros_like(a) for n, a in arrays.items() if ".b" in n}
    expected, found = outputs(separate, arrays), outputs(joined, combined(arrays))
    equal = {n: np.array_equal(found[n], array) for n, array in expected.items()}
    assert set(equal.values()) == {same}


# --- The hand-made RNN and the layer ----------------------------------------------------------


@pytest.mark.parametrize("signs", ["any", "positive"])
def test_first_rnn_and_simple_rnn_are_two_functions(signs: str) -> None:
    """A relu on each term, or one on the sum: equal only where no relu cuts anything off."""
    small = {"vocab": 11, "factors": 5, "hidden": 7}
    by_hand = load_spec("lesson6/first_rnn").program(**small)
    layer = load_spec("lesson6/simple_rnn").program(**small)
    chars = np.random.default_rng(0).integers(0, 11, (2, 8))
    free = {"batch": 2, "time": 8}
    arrays: dict[str, Any] = normals(layer, free) | {"chars": chars, "target": chars[:, 0]}
    if signs == "positive":
        arrays = {n: np.abs(a) for n, a in arrays.items()}
    renamed = {
        "dense_in.W": arrays["rnn.W"],
        "dense_in.b": arrays["rnn.b"],
        "dense_hidden.W": arrays["rnn.U"],
        "dense_hidden.b": np.zeros(7),
        "dense_out.W": arrays["out.W"],
        "dense_out.b": arrays["out.b"],
        "target": arrays["target"],
    }
    for n in range(8):
        renamed |= {f"c{n + 1}": chars[:, n], f"embed_{n + 1}.table": arrays["embed.table"]}
    expected = outputs(layer, arrays, free)["logits"]
    gap = np.max(np.abs(outputs(by_hand, renamed, free)["logits"] - expected))
    if signs == "positive":
        assert gap <= 1e-14 * np.max(np.abs(expected))
    else:
        assert gap > 0.1


# --- On the notebook's own text ---------------------------------------------------------------


@pytest.fixture(scope="module")
def indices() -> Any:
    path = os.environ.get("HARNESS_CORPUS")
    if not path:
        pytest.skip("set HARNESS_CORPUS to the path of nietzsche.txt to check its numbers")
    text = corpus.read_text(Path(path))
    assert len(text) == 600893
    return vocabulary.Vocabulary.of(text).encode(text)


def first_rows(indices: Any, program: Program) -> dict[str, Any]:
    """The first 64 windows of 8 characters and the character after each; initial parameters."""
    found: dict[str, Any] = {
        f"c{n + 1}": vocabulary.column(indices, 8, 8, n, 2)[:64].astype(np.int64) for n in range(8)
    }
    found["target"] = vocabulary.column(indices, 8, 8, 8, 2)[:64]
    return {**found, **initial_parameters(program, 0)}


def test_an_identity_start_puts_preactivations_at_exactly_0(indices: Any) -> None:
    program = load_spec("lesson6/first_rnn").program()
    arrays = first_rows(indices, program)
    steps = outputs(program, arrays, {"batch": 64})
    hidden = np.stack([steps[f"h{n}"] for n in range(1, 8)])
    np.testing.assert_array_equal(arrays["dense_hidden.W"], np.eye(256))
    exact = float(np.mean(hidden @ arrays["dense_hidden.W"] + arrays["dense_hidden.b"] == 0))
    assert exact == pytest.approx(0.142, abs=0.005)


@pytest.mark.parametrize(("form", "gap"), [
    ("where(x < 0, 0, x)", 0.196),
    ("0.5 * where(x < 0, 0, x) + 0.5 * where(x <= 0, 0, x)", 0.062),
], ids=["slope 1", "slope 1/2"])  # fmt: skip
def test_the_slope_of_relu_at_0_matters_there(indices: Any, form: str, gap: float) -> None:
    """The gradient of the hidden bias, against slope 0; how much depends on the draw."""
    changed = {("function", "relu"): RELU % form}
    found = []
    for overrides in ({}, changed):
        program = load_spec("lesson6/first_rnn", overrides=overrides).program()
        free = {"batch": 64}
        found.append(gradients(program, first_rows(indices, program), free)["dense_hidden.b"])
    relative = np.linalg.norm(found[1] - found[0]) / np.linalg.norm(found[0])
    assert relative == pytest.approx(gap, rel=0.25)


def check_scalar(x: Any, y: Any) -> tuple[Any, float]:
    """The true gradient of w_h, equal by hand and derived; and the notebook's scalar."""
    program = load_spec("lesson6/pure_python_rnn").program()
    drawn = notebook_rnn.draw(program.sizes["vocab"], program.sizes["hidden"])
    arrays = {"chars": x[None], "target": y[None], **drawn}
    found = gradients(program, arrays, {"batch": 1, "time": len(x)})
    for name, expected in notebook_rnn.moves(x, y, drawn, scalar=False).items():
        np.testing.assert_allclose(found[name], expected, atol=1e-13 * np.max(np.abs(expected)))
    literal = notebook_rnn.moves(x, y, drawn, scalar=True)["rnn.U"]
    return found["rnn.U"], float(literal[0, 0])


def test_the_scalar_of_w_h_is_the_trace_of_its_gradient() -> None:
    """args[p-1][3].dot(d_pre_hidden) is a number: no direction of the gradient is left in it."""
    chars = np.eye(86)[np.random.default_rng(0).integers(0, 86, 9)]
    true, scalar = check_scalar(chars[:-1], chars[1:])
    assert scalar == pytest.approx(np.trace(true), rel=1e-12)
    update = np.full_like(true, scalar)
    assert np.linalg.norm(update - true) > np.linalg.norm(true)


def test_the_scalar_of_w_h_on_the_first_sample(indices: Any) -> None:
    chars = np.eye(86)
    x = chars[vocabulary.windows(indices, 8, 8, 0, 2)[0]]
    y = chars[vocabulary.windows(indices, 8, 8, 1, 2)[0]]
    true, scalar = check_scalar(x, y)
    update = np.full_like(true, scalar)
    assert scalar == pytest.approx(5.9738, abs=5e-5)
    assert np.linalg.norm(true) == pytest.approx(86.02, abs=5e-3)
    error = np.linalg.norm(update - true) / np.linalg.norm(true)
    assert error == pytest.approx(17.76, abs=5e-3)
    cosine = np.sum(update * true) / np.linalg.norm(update) / np.linalg.norm(true)
    assert cosine == pytest.approx(0.0514, abs=5e-5)
