"""Everything that the torch backend claims as torch's own equals its definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from two_paths import compare, draw, start

from harness.runtime.backend import Backend
from harness.runtime.plugins import load
from harness.spec.model import Spec, load_spec

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


@pytest.mark.parametrize("layer", ["simple_rnn", "lstm", "gru_reset_after"])
def test_a_recurrent_claim_starts_from_zeros_where_no_state_is_given(
    backend: Backend, write: Write, layer: str
) -> None:
    spec = write(f"{{layer: {layer}, units: units}}", "y = it(x)")
    paths, error = compare(backend, spec, {"batch": 4, "time": 3})
    assert paths["it"].startswith("torch.")
    assert error < 1e-14


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("layer", ["dense", "dense_without_bias"])
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


# --- optimizers ---------------------------------------------------------------------------------

OPTIMIZERS = {
    "{optimizer: sgd}": "torch.optim.SGD",
    "{optimizer: sgd_momentum}": "torch.optim.SGD",
    "{optimizer: sgd_momentum, momentum: 0.5}": "torch.optim.SGD",
    "{optimizer: adam}": "torch.optim.Adam",
    "{optimizer: adam, beta_1: 0.5, beta_2: 0.75, epsilon: 0.25}": "torch.optim.Adam",
    "{optimizer: adam_epsilon_hat}": "torch.optim.Adam",
    "{optimizer: adam_epsilon_hat, beta_1: 0.5, beta_2: 0.75, epsilon: 0.25}": "torch.optim.Adam",
    "{optimizer: adam_epsilon_hat, beta_2: 0.0}": "torch.optim.Adam",
    "{optimizer: rmsprop}": "torch.optim.RMSprop",
    "{optimizer: rmsprop, rho: 0.5, epsilon: 0.25}": "torch.optim.RMSprop",
    "{optimizer: sgd_momentum, momentum: 0.0}": "equations",
    "{optimizer: sgd_momentum, momentum: -0.5}": "equations",
    "{optimizer: adam, beta_1: -0.5}": "equations",
    "{optimizer: rmsprop_epsilon_inside}": "equations",
    "{optimizer: sgd_momentum_scaled}": "equations",
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_claim_is_the_definition(
    backend: Backend, write: Write, optimizer: str
) -> None:
    """Three steps at three learning rates, through a packing that has a frozen tensor."""
    spec = write("{layer: lstm, units: units}", "y = it(x)", optimizer=optimizer)
    paths, error = compare(backend, spec, {"batch": 4, "time": 3})
    assert paths["optimizer"] == OPTIMIZERS[optimizer]
    assert error < 1e-14


@pytest.mark.parametrize("optimizer", ["sgd_momentum", "adam", "adam_epsilon_hat", "rmsprop"])
def test_slots_are_zeros_before_the_first_step_and_after_loading(
    backend: Backend, write: Write, optimizer: str
) -> None:
    spec = write(
        "{layer: dense, units: units}", "y = it(x)", optimizer=f"{{optimizer: {optimizer}}}"
    )
    given = draw(spec.program("training"), {"batch": 4, "time": 3})
    session = start(backend, spec, "native", "float64")
    for _ in range(2):
        session.load(given["parameters"], given["statistics"])
        slots = session.read()["slots"]
        assert slots
        assert all(not a.any() for arrays in slots.values() for a in arrays.values())
        session.step(given["inputs"], given["state"], given["targets"], 0.125)
        slots = session.read()["slots"]
        assert all(a.any() for arrays in slots.values() for a in arrays.values())


def test_an_optimizer_leaves_the_tensors_that_it_was_given(backend: Backend, write: Write) -> None:
    spec = write("{layer: dense, units: units}", "y = it(x)")
    given = draw(spec.program("training"), {"batch": 4, "time": 3})
    session = start(backend, spec, "native", "float64")
    session.load(given["parameters"], given["statistics"])
    for _ in range(2):
        before = session.variables["it/weight"]
        values = backend.numpy(before)
        session.step(given["inputs"], given["state"], given["targets"], 0.125)
        assert np.array_equal(backend.numpy(before), values)
        assert not np.array_equal(backend.numpy(session.variables["it/weight"]), values)


def test_an_optimizer_takes_a_model_without_parameters(backend: Backend, write: Write) -> None:
    spec = write("{layer: dense, units: units}", "y = it(x)")
    assert spec.update is not None
    optimizer = backend.claim_optimizer(spec.update)
    assert optimizer is not None
    assert optimizer.update(optimizer.start({}), {}, {}, 0.125)[1] == {}


@pytest.mark.parametrize("optimizer", ["sgd", "sgd_momentum", "adam", "adam_epsilon_hat"])
def test_parameters_and_gradients_may_lie_in_memory_in_any_order(
    backend: Backend, write: Write, optimizer: str
) -> None:
    """That of a product is transposed, and a fused update does not look at strides."""
    spec = write(
        "{layer: dense, units: units}", "y = it(x)", optimizer=f"{{optimizer: {optimizer}}}"
    )
    assert spec.update is not None
    claimed = backend.claim_optimizer(spec.update)
    assert claimed is not None
    values = np.arange(6.0).reshape(2, 3)
    parameters = backend.tensor(values), backend.tensor(values.T).T
    gradients = backend.tensor(values - 2), backend.tensor((values - 2).T).T
    moved = [
        claimed.update(claimed.start({"w": w}), {"w": w}, {"w": gradient}, 0.125)[1]["w"]
        for w in parameters
        for gradient in gradients
    ]
    first, *others = map(backend.numpy, moved)
    assert not np.array_equal(first, values)
    for other in others:
        assert np.array_equal(first, other)
