"""ONNX files: onnxruntime gives the oracle's outputs, and weights come back to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exporting import ODD
from format_cases import (
    ALLOWED,
    SMALL,
    Case,
    ask,
    assert_comes_back,
    assert_same,
    error,
    everything,
    outputs,
    read,
    refused,
    written,
)
from needed import need
from wording import Wording

import harness
from harness.convert.formats import launch
from harness.language.library import lesson6
from harness.program.serial import encode
from harness.worker.worker import Worker

need("onnx", "onnxruntime")

import onnx  # noqa: E402

LSTM = "lesson6/stateful_lstm"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(launch("onnx")) as started:
        yield started


@pytest.fixture
def saved(worker: Worker, tmp_path: Path) -> tuple[Case, Path]:
    """An LSTM with batch normalisation and state, and its file."""
    case, path = Case.of(harness.load(LSTM), "float32"), tmp_path / "lstm.onnx"
    written(worker, case, path)
    return case, path


@pytest.mark.parametrize("dtype", ALLOWED)
@pytest.mark.parametrize("name", lesson6())
def test_outputs_agree_with_the_oracle_at_any_size(
    worker: Worker, tmp_path: Path, name: str, dtype: str
) -> None:
    case, path = Case.of(harness.load(name), dtype), tmp_path / "model.onnx"
    assert written(worker, case, path) == [path]
    for batch, time in ((3, 4), (1, 1), (5, 9)):
        assert outputs(worker, case, path, batch, time) < ALLOWED[dtype]
    assert_comes_back(worker, case, path)


@pytest.mark.parametrize("dtype", ALLOWED)
@pytest.mark.parametrize("name", ["odd", "nested"])
def test_a_model_that_is_hard_to_write(
    worker: Worker, tmp_path: Path, name: str, dtype: str
) -> None:
    spec = harness.load(str(ODD / f"{name}.yaml"), [ODD])
    case, path = Case.of(spec, dtype), tmp_path / "odd.onnx"
    written(worker, case, path)
    for batch, time in ((3, 4), (1, 2), (5, 9)):
        assert outputs(worker, case, path, batch, time) < ALLOWED[dtype]
    assert_comes_back(worker, case, path)


@pytest.mark.parametrize("dtype", ALLOWED)
def test_all_forms_of_the_language(worker: Worker, tmp_path: Path, dtype: str) -> None:
    case, path = Case.of(everything(tmp_path), dtype), tmp_path / "everything.onnx"
    written(worker, case, path)
    for batch, time in ((3, 4), (1, 2), (5, 9)):
        assert outputs(worker, case, path, batch, time) < ALLOWED[dtype]


def test_names_axes_and_notes(saved: tuple[Case, Path]) -> None:
    case, path = saved
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (opset,) = model.opset_import
    assert (opset.domain, opset.version) == ("", 18)

    def ports(values: Any) -> dict[str, list[Any]]:
        axes = {v.name: v.type.tensor_type.shape.dim for v in values}
        return {n: [d.dim_param or d.dim_value for d in dims] for n, dims in axes.items()}

    hidden, vocab = SMALL["hidden"], SMALL["vocab"]
    assert ports(model.graph.input) == {
        "chars": ["batch", "time"],
        "state.h": ["batch", hidden],
        "state.c": ["batch", hidden],
    }
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.INT64
    found = ports(model.graph.output)
    assert found["next_chars"] == ["batch", "time", vocab]
    assert found["new_state.h"] == ["batch", hidden]
    parameters = {**case.exported.parameters, **case.exported.statistics}
    assert {i.name for i in model.graph.initializer} == parameters.keys()
    assert {p.key: p.value for p in model.metadata_props} == {
        "spec": LSTM,
        "vocabulary": '["\\u0000", "\\u00e9"]',
        "metadata": '{"seed": 3}',
    }


def test_state_is_carried_from_call_to_call(worker: Worker, saved: tuple[Case, Path]) -> None:
    case, path = saved
    inputs, state = case.batch(3, 6)
    whole = ask(worker, "outputs", path=str(path), inputs=inputs, state=state)
    parts = []
    for half in (slice(0, 2), slice(2, 6)):
        chars = {"chars": np.ascontiguousarray(inputs["chars"][:, half])}
        made = ask(worker, "outputs", path=str(path), inputs=chars, state=state)
        state = {n: made[f"state.{n}"] for n in ("h", "c")}
        parts.append(made["output.next_chars"])
    np.testing.assert_allclose(np.concatenate(parts, 1), whole["output.next_chars"], rtol=1e-5)


def test_the_same_model_gives_the_same_bytes(worker: Worker, saved: tuple[Case, Path]) -> None:
    case, path = saved
    again = path.with_name("again.onnx")
    written(worker, case, again)
    assert again.read_bytes() == path.read_bytes()
    assert {f.name for f in path.parent.iterdir()} == {"lstm.onnx", "again.onnx"}


def test_an_index_that_is_too_large_is_an_error_of_the_runtime(
    worker: Worker, saved: tuple[Case, Path], wording: Wording
) -> None:
    case, path = saved
    inputs, state = case.batch(3, 4)
    inputs["chars"][0, 0] = SMALL["vocab"]
    payload = {"path": str(path), "inputs": inputs, "state": state}
    wording(worker.call("outputs", payload).cause)


def test_a_negative_index_counts_from_the_end(worker: Worker, saved: tuple[Case, Path]) -> None:
    """What ONNX wants, and what the documentation warns of."""
    case, path = saved
    inputs, state = case.batch(3, 4)
    inputs["chars"][0, 0] = SMALL["vocab"] - 1
    wanted = case.wanted(inputs, state)
    inputs["chars"][0, 0] = -1
    found = ask(worker, "outputs", path=str(path), inputs=inputs, state=state)
    assert error(found, wanted) < ALLOWED["float32"]


def changed(path: Path, change: Callable[[Any], None]) -> Path:
    """A copy of a file with another content."""
    model = onnx.load(path)
    change(model)
    copy = path.with_name("changed.onnx")
    copy.write_bytes(model.SerializeToString())
    return copy


def _initializer(model: Any, name: str) -> Any:
    return next(i for i in model.graph.initializer if i.name == name)


def test_gates_that_trade_places_are_seen(worker: Worker, saved: tuple[Case, Path]) -> None:
    case, path = saved

    def swap(model: Any) -> None:
        first, second = (_initializer(model, f"lstm.U_{gate}") for gate in "if")
        first.name, second.name = second.name, first.name

    assert outputs(worker, case, path) < ALLOWED["float32"]
    swapped = changed(path, swap)
    assert outputs(worker, case, swapped) > 1e-3
    found = read(worker, case, swapped)["parameters"]
    given = case.exported.parameters
    assert_same({"U": found["lstm.U_i"]}, {"U": given["lstm.U_f"]})
    assert_same({"U": found["lstm.U_o"]}, {"U": given["lstm.U_o"]})


def _without(model: Any) -> None:
    model.graph.initializer.remove(_initializer(model, "lstm.U_i"))


def _half(model: Any) -> None:
    array = np.zeros((SMALL["hidden"], SMALL["hidden"]), np.float16)
    _initializer(model, "lstm.U_i").CopyFrom(onnx.numpy_helper.from_array(array, "lstm.U_i"))


def _wide(model: Any) -> None:
    array = np.zeros((SMALL["hidden"], 2), np.float32)
    _initializer(model, "lstm.U_i").CopyFrom(onnx.numpy_helper.from_array(array, "lstm.U_i"))


def _elsewhere(model: Any) -> None:
    array = _initializer(model, "lstm.U_i")
    onnx.external_data_helper.set_external_data(array, "weights.bin", 0, 196)
    array.ClearField("raw_data")


def _other(model: Any) -> None:
    onnx.helper.set_model_props(model, {"spec": "lesson6/simple_rnn"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without, "lstm.U_i"),
        (_half, "lstm.U_i ... lesson6/stateful_lstm ... [7, 7] ... float32 ... float64"),
        (_wide, "[7, 2] ... float32"),
        (_elsewhere, "lstm.U_i ... weights.bin"),
        (_other, "lesson6/simple_rnn ... lesson6/stateful_lstm"),
    ],
)
def test_a_file_of_something_else_is_refused(
    worker: Worker,
    saved: tuple[Case, Path],
    change: Callable[[Any], None],
    words: str,
    wording: Wording,
) -> None:
    case, path = saved
    wording.line(
        refused(
            worker, "read", path=str(changed(path, change)), training=encode(case.exported.training)
        ),
        words,
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ""),
        (b"PK\x03\x04 an archive of something", ""),
        (None, "ONNX"),
    ],
)
def test_what_is_no_onnx_file_is_refused(
    worker: Worker, saved: tuple[Case, Path], content: bytes | None, words: str, wording: Wording
) -> None:
    case, path = saved
    path = path.with_name("other.onnx")
    if content is not None:
        path.write_bytes(content)
    wording.line(
        refused(worker, "read", path=str(path), training=encode(case.exported.training)), words
    )
