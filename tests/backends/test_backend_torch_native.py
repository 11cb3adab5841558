"""Everything that the torch backend claims as torch's own equals its definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from two_paths import compare, draw, everything, start, worst

from harness.language.model import Spec, load_spec
from harness.runtime.backend import Backend
from harness.runtime.plugins import load

torch = pytest.importorskip("torch")

CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.cuda,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    ],
)


@pytest.fixture(scope="module")
def backend() -> Backend:
    return load("torch")


Write = Callable[..., Spec]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that loads a model of one layer and one loss from its YAML."""

    def write(
        layer: str,
        equations: str,
        x: str = "{shape: [batch, time, features]}",
        target: str = "{shape: [batch, time, units]}",
        states: tuple[str, ...] = (),
        loss: str = "squared_error",
        optimizer: str = "{optimizer: sgd}",
    ) -> Spec:
        file = tmp_path / "tiny.yaml"
        state = "\n".join(f"  {n}: {{shape: [batch, units]}}" for n in states)
        file.write_text(
            "model: tiny\nsummary: One layer.\nsource: none\nsizes: {features: 3, units: 5}\n"
            f"inputs:\n  x: {x}\n" + (f"state:\n{state}\n" if states else "") + f"layers:\n"
            f"  it: {layer}\nequations: {equations}\ntargets:\n  target: {target}\n"
            f"loss: mean({loss}(y, target))\noptimizer: {optimizer}\n"
        )
        return load_spec(str(file))

    return write


RECURRENT = {
    "{layer: simple_rnn, units: units}": ("torch.rnn_tanh", "h"),
    "{layer: simple_rnn, units: units, activation: relu}": ("torch.rnn_relu", "h"),
    "{layer: simple_rnn_two_biases, units: units}": ("torch.rnn_tanh", "h"),
    "{layer: simple_rnn_two_biases, units: units, activation: relu}": ("torch.rnn_relu", "h"),
    "{layer: simple_rnn_without_bias, units: units}": ("torch.rnn_tanh", "h"),
    "{layer: simple_rnn_without_bias, units: units, activation: relu}": ("torch.rnn_relu", "h"),
    "{layer: lstm, units: units}": ("torch.lstm", "hc"),
    "{layer: gru_reset_after, units: units}": ("torch.gru", "h"),
}


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("free", [{"batch": 4, "time": 3}, {"batch": 1, "time": 1}], ids=str)
@pytest.mark.parametrize("layer", RECURRENT)
def test_a_recurrent_claim_is_the_definition(
    backend: Backend, write: Write, layer: str, free: Mapping[str, int], device: str
) -> None:
    label, states = RECURRENT[layer]
    given = ", ".join(f"{n}={n}" for n in states)
    spec = write(layer, f"y, {', '.join(states)} = it(x, {given})", states=tuple(states))
    paths, error = compare(backend, spec, free, device)
    assert paths["it"] == label + (" (cuDNN)" if device == "cuda" else "")
    assert error < 1e-14


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("free", [{"batch": 4, "time": 3}, {"batch": 1, "time": 1}], ids=str)
@pytest.mark.parametrize(
    ("layer", "label", "states"),
    [
        ("bidirectional_lstm", "torch.lstm", ("h", "c", "back_h", "back_c")),
        ("bidirectional_gru_reset_after", "torch.gru", ("h", "back_h")),
    ],
)
def test_a_claim_of_both_directions_is_the_definition(
    backend: Backend,
    write: Write,
    layer: str,
    label: str,
    states: tuple[str, ...],
    free: Mapping[str, int],
    device: str,
) -> None:
    given = ", ".join(f"{n}={n}" for n in states)
    spec = write(
        f"{{layer: {layer}, units: units}}",
        f"y, {', '.join(states)} = it(x, {given})",
        target="{shape: [batch, time, 2 * units]}",
        states=states,
    )
    paths, error = compare(backend, spec, free, device)
    assert paths["it"] == label + (" (cuDNN)" if device == "cuda" else "")
    assert error < 1e-14


@pytest.mark.parametrize("layer", ["simple_rnn", "lstm", "gru_reset_after"])
def test_a_recurrent_claim_starts_from_zeros_where_no_state_is_given(
    backend: Backend, write: Write, layer: str
) -> None:
    spec = write(f"{{layer: {layer}, units: units}}", "y = it(x)")
    paths, error = compare(backend, spec, {"batch": 4, "time": 3})
    assert paths["it"].startswith("torch.")
    assert error < 1e-14


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("layer", ["dense", "dense, bias: false"])
@pytest.mark.parametrize("axes", ["batch, time, ", "batch, "])
def test_a_dense_claim_is_the_definition(
    backend: Backend, write: Write, layer: str, activation: str, axes: str
) -> None:
    spec = write(
        f"{{layer: {layer}, units: units, activation: {activation}}}",
        "y = it(x)",
        x=f"{{shape: [{axes}features]}}",
        target=f"{{shape: [{axes}units]}}",
    )
    paths, error = compare(backend, spec, {"batch": 4, "time": 3})
    tail = "" if activation == "linear" else f", torch.{activation}"
    assert paths["it"] == "torch.nn.functional.linear" + tail
    assert paths["squared_error"] == "torch.nn.functional.mse_loss"
    assert error < 1e-14


def test_the_embedding_claim_is_the_definition(backend: Backend, write: Write) -> None:
    layer, x = (
        "{layer: embedding, rows: features, units: units}",
        "{shape: [batch, time], index: features}",
    )
    paths, error = compare(backend, write(layer, "y = it(x)", x=x), {"batch": 4, "time": 3})
    assert paths["it"] == "torch.nn.functional.embedding"
    assert error < 1e-14


@pytest.mark.parametrize("axes", ["batch, time, ", "batch, "])
@pytest.mark.parametrize("attributes", ["", ", epsilon: 0.25, momentum: 0.5"])
@pytest.mark.parametrize("batch", [4, 1])  # torch.nn.BatchNorm1d refuses a single row
def test_the_batch_norm_claim_is_the_definition(
    backend: Backend, write: Write, axes: str, attributes: str, batch: int
) -> None:
    shape = f"{{shape: [{axes}features]}}"
    spec = write(f"{{layer: batch_norm{attributes}}}", "y = it(x) * units", x=shape, target=shape)
    paths, error = compare(backend, spec, {"batch": batch, "time": 3})
    assert paths["it"] == "torch.batch_norm, torch.var_mean"
    assert error < 1e-13  # a difference from the batch's mean loses a digit


def test_a_claimed_batch_norm_that_is_called_twice_moves_its_statistics_twice(
    backend: Backend, write: Write
) -> None:
    shape = "{shape: [batch, features]}"
    layer = "{layer: batch_norm, momentum: 0.5}"
    spec = write(layer, "y = it(it(x)) * units", x=shape, target=shape)
    paths, error = compare(backend, spec, {"batch": 4})
    assert paths["it"] == "torch.batch_norm, torch.var_mean"
    assert error < 1e-13


@pytest.mark.parametrize(
    ("loss", "index"), [("cross_entropy", False), ("sparse_cross_entropy", True)]
)
@pytest.mark.parametrize("axes", ["batch, time", "batch"])
def test_a_loss_claim_is_the_definition(
    backend: Backend, write: Write, loss: str, index: bool, axes: str
) -> None:
    target = f"{{shape: [{axes}], index: units}}" if index else f"{{shape: [{axes}, units]}}"
    x = f"{{shape: [{axes}, features]}}"
    spec = write("{layer: dense, units: units}", "y = it(x)", x=x, target=target, loss=loss)
    # As many steps as classes: a wrong axis would not be an error of shapes.
    paths, error = compare(backend, spec, {"batch": 4, "time": 5})
    assert paths[loss] == "torch.nn.functional.cross_entropy"
    assert error < 1e-14


@pytest.mark.parametrize(
    ("layer", "equations"),
    [
        ("{layer: gru, units: units}", "y = it(x)"),
        ("{layer: simple_rnn, units: units, activation: sigmoid}", "y = it(x)"),
        ("{layer: lstm, units: units, gate: hard_sigmoid_fifth}", "y = it(x)"),
        ("{layer: lstm, units: units, activation: relu}", "y = it(x)"),
        ("{layer: gru_reset_after, units: units, gate: hard_sigmoid_sixth}", "y = it(x)"),
        ("{layer: gru_reset_after, units: units, activation: relu}", "y = it(x)"),
        ("{layer: dense, units: units, activation: softmax}", "y = it(x)"),
    ],
)
def test_what_torch_has_not_is_not_claimed(
    backend: Backend, write: Write, layer: str, equations: str
) -> None:
    assert start(backend, write(layer, equations), "native", "float64").paths()["it"] == "equations"


def test_an_lstm_is_trained_in_float16_whatever_onednn_has(
    backend: Backend, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = "{shape: [batch, time, 2 * units]}"
    spec = write("{layer: bidirectional_lstm, units: units}", "y = it(x)", target=wide)
    given = draw(spec.program("training"), {"batch": 2, "time": 3})
    found = everything(start(backend, spec, "native", "float16"), given, steps=0)
    package = type(backend).__module__.rpartition(".")[0]
    monkeypatch.setattr(f"{package}.autocast._onednn_trains", lambda _: False)
    without = start(backend, spec, "native", "float16")
    assert without.paths()["it"] == "torch.lstm (autocast, without oneDNN)"
    assert worst(found, everything(without, given, steps=0)) < 0.05
    assert torch.backends.mkldnn.enabled
