"""Everything of torch.optim that the torch backend claims equals its definition."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from two_paths import compare, draw, start

from harness.language.model import Spec, load_spec
from harness.runtime.backend import Backend
from harness.runtime.plugins import load

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def backend() -> Backend:
    return load("torch")


Write = Callable[..., Spec]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that loads a model of one layer with an optimizer."""

    def write(layer: str, equations: str, optimizer: str = "{optimizer: adam}") -> Spec:
        file = tmp_path / "tiny.yaml"
        file.write_text(
            "model: tiny\nsummary: One layer.\nsource: none\nsizes: {features: 3, units: 5}\n"
            "inputs:\n  x: {shape: [batch, time, features]}\nlayers:\n"
            f"  it: {layer}\nequations: {equations}\ntargets:\n"
            "  target: {shape: [batch, time, units]}\n"
            f"loss: mean(squared_error(y, target))\noptimizer: {optimizer}\n"
        )
        return load_spec(str(file))

    return write


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
    "{optimizer: adamw, beta_1: 0.5, epsilon: 0.25, weight_decay: 0.5}": "torch.optim.AdamW",
    "{optimizer: amsgrad, beta_2: 0.5, epsilon: 0.25}": "torch.optim.Adam",
    "{optimizer: radam_epsilon_hat, beta_2: 0.9, epsilon: 0.25}": "torch.optim.RAdam",
    "{optimizer: adagrad, initial: 0.5, epsilon: 0.25}": "torch.optim.Adagrad",
    "{optimizer: adadelta, rho: 0.5, epsilon: 0.25}": "torch.optim.Adadelta",
    "{optimizer: adam, schedule: 1 / t, gradient: g + p}": "torch.optim.Adam",
    "{optimizer: adadelta, schedule: 1 / t}": "torch.optim.Adadelta",
    "{optimizer: adam, beta_1: 1 - 1 / (t + 1)}": "equations",
    "{optimizer: adam, groups: [{parameters: it.b_f, schedule: 0.5}]}": "equations",
    "{optimizer: adam, total: {n: g * g}, gradient: g / sqrt(n)}": "torch.optim.Adam",
    "{optimizer: adam, gradient: g / sqrt(sum(g * g))}": "equations",
    "{optimizer: lamb, weight_decay: 0.5}": "equations",
    "{optimizer: nadam}": "equations",
    "{optimizer: radam}": "equations",
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


def test_nadam_is_claimed_where_its_product_is_precise_enough(
    backend: Backend, write: Write
) -> None:
    """torch keeps it in float32; and it starts as 1."""
    spec = write("{layer: dense, units: units}", "y = it(x)", optimizer="{optimizer: nadam}")
    given = draw(spec.program("training"), {"batch": 4, "time": 3})
    kept = []
    for path, label in (("native", "torch.optim.NAdam"), ("equations", "equations")):
        session = start(backend, spec, path, "float32")
        assert session.paths()["optimizer"] == label
        session.load(given["parameters"], given["statistics"])
        assert all((a == 1).all() for a in session.read()["slots"]["product"].values())
        for rate in (0.125, 0.25):
            session.step(given["inputs"], given["state"], given["targets"], rate)
        kept.append(session.read())
    for slot, arrays in kept[0]["slots"].items():
        for name, array in arrays.items():
            assert np.allclose(array, kept[1]["slots"][slot][name], rtol=1e-4, atol=1e-9)
    for name, array in kept[0]["parameters"].items():
        assert np.allclose(array, kept[1]["parameters"][name], rtol=1e-5, atol=1e-6)


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
