"""The jax backend: its gradients, optax's losses and optimizers, its two dtypes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from two_paths import Arrays, by_oracle, draw, start, worst
from wording import Wording

from harness.errors import UsageError
from harness.language.model import Spec, load_spec
from harness.runtime import plugins
from harness.runtime.backend import Backend
from harness.runtime.session import Session, make_session

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
from jax_config import kept_config  # noqa: E402 (it imports jax)

FREE = {"batch": 3, "time": 4}
SIZES = {"vocab": 11, "factors": 5, "hidden": 7, "characters": 10}


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with kept_config():
        yield plugins.load("jax")


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """A function that loads a model from the text of its layers, equations and the rest."""

    def load(body: str) -> Spec:
        path = tmp_path / "model.yaml"
        path.write_text(f"model: tried\nsummary: A test.\nsource: This test.\n{body}")
        return load_spec(str(path))

    return load


STACK = """
sizes: {classes: 6, units: 5}
inputs:
  chars: {shape: [batch, time], index: classes}
state:
  h: {shape: [batch, units]}
  c: {shape: [batch, units]}
layers:
  embed: {layer: embedding, rows: classes, units: units}
  lstm: {layer: lstm, units: units}
  gru: {layer: gru_reset_after, units: units}
  out: {layer: dense, units: classes}
equations: |
  hidden_states, h, c = lstm(embed(chars), h=h, c=c)
  logits = out(gru(reverse(hidden_states)))
targets:
  target: {shape: [batch, time], index: classes}
loss: mean(sparse_cross_entropy(logits, target))
optimizer: {optimizer: adam}
"""


def gradients_of(backend: Backend, spec: Spec, path: str, dtype: str, **sizes: int) -> Any:
    """(found, wanted): a session's results and gradients, and the oracle's."""
    program, inference = spec.program(**sizes), spec.program("inference", **sizes)
    given = draw(program, FREE)
    backend.use("cpu", dtype)
    session = make_session(backend, program, inference, path=path, dtype=dtype, rule=spec.update)
    session.load(given["parameters"], given["statistics"])
    batch = (given["inputs"], given["state"], given["targets"])
    results, gradients = session.gradients("training", *batch)
    wanted = by_oracle(program, given, FREE)
    return {n: a for n, a in {**results, **gradients}.items() if n in wanted}, wanted


@pytest.mark.parametrize(
    ("path", "dtype", "limit"),
    [("native", "float64", 1e-14), ("derived", "float64", 1e-14), ("native", "float32", 4e-6)],
)
@pytest.mark.parametrize("name", ["stateful_lstm", "sequence_unrolled", "theano_gru_combined"])
def test_lesson_6_agrees_with_the_oracle(
    backend: Backend, name: str, path: str, dtype: str, limit: float
) -> None:
    spec = load_spec(f"lesson6/{name}")
    sizes = {n: SIZES[n] for n in spec.model.sizes}
    found, wanted = gradients_of(backend, spec, path, dtype, **sizes)
    assert {str(a.dtype) for a in found.values()} == {dtype}
    assert worst(found, wanted) < limit


@pytest.mark.parametrize("path", ["equations", "derived"])
def test_other_layers_agree_with_the_oracle(backend: Backend, model: Any, path: str) -> None:
    found, wanted = gradients_of(backend, model(STACK), path, "float64")
    assert worst(found, wanted) < 1e-14


LOSS = """
sizes: {{classes: 5}}
inputs:
  x: {{shape: [batch, classes]}}
layers:
  out: {{layer: dense, units: classes}}
equations: y = out(x) * 50
targets:
  target: {{shape: {target}}}
loss: mean({loss}(y, target))
optimizer: {{optimizer: {optimizer}}}
"""
INDEXED, FLOATS = "[batch], index: classes", "[batch, classes]"


@pytest.mark.parametrize(
    ("loss", "target", "label"),
    [
        ("cross_entropy", FLOATS, "softmax_cross_entropy"),
        ("sparse_cross_entropy", INDEXED, "softmax_cross_entropy_with_integer_labels"),
        ("squared_error", FLOATS, "squared_error"),
    ],
)
def test_a_loss_of_optax_is_its_definition(
    backend: Backend, model: Any, loss: str, target: str, label: str
) -> None:
    # Logits of a few hundred: a loss that clips, or does not subtract the largest, shows.
    spec = model(LOSS.format(loss=loss, target=target, optimizer="sgd"))
    found, wanted = gradients_of(backend, spec, "native", "float64")
    assert worst(found, wanted) < 1e-14
    assert start(backend, spec, "native", "float64").paths()[loss] == f"optax.{label}"


def trained(session: Session, given: dict[str, Arrays]) -> Arrays:
    """Parameters and slots after each of three steps, whose learning rate changes."""
    session.load(given["parameters"], given["statistics"])
    found = {}
    for number, rate in enumerate((0.1, 0.03, 0.2)):
        session.step(given["inputs"], given["state"], given["targets"], rate)
        state = session.read()
        groups = {"parameter": state["parameters"], **state["slots"]}
        found |= {f"{number} {g} {n}": a for g, group in groups.items() for n, a in group.items()}
    return found


@pytest.mark.parametrize(
    ("optimizer", "label", "slots"),
    [
        ("adam, beta_1: 0.8, beta_2: 0.9, epsilon: 0.01", "adam", 2),
        ("rmsprop, rho: 0.8, epsilon: 0.01", "rmsprop", 1),
        ("rmsprop_epsilon_inside, rho: 0.8, epsilon: 0.01", "rmsprop", 1),
        ("sgd", "sgd", 0),
        ("sgd_momentum, momentum: 0.7", "sgd", 1),
        ("adadelta, rho: 0.8, epsilon: 0.01", "adadelta", 2),
        ("adagrad_epsilon_inside, initial: 0.5, epsilon: 0.01", "adagrad", 1),
        ("adamw, beta_1: 0.8, beta_2: 0.9, epsilon: 0.01, weight_decay: 0.5", "adamw", 2),
        ("amsgrad_corrected, beta_1: 0.8, beta_2: 0.5, epsilon: 0.01", "amsgrad", 3),
        ("lamb, beta_1: 0.8, beta_2: 0.9, epsilon: 0.01, weight_decay: 0.5", "lamb", 2),
        ("lion, beta_1: 0.8, beta_2: 0.9, weight_decay: 0.5", "lion", 1),
        ("nadam_constant, beta_1: 0.8, beta_2: 0.9, epsilon: 0.01", "nadam", 2),
        ("radam, beta_1: 0.5, beta_2: 0.9, epsilon: 0.01", "radam", 2),
    ],
)
def test_an_optimizer_of_optax_is_its_definition(
    backend: Backend, model: Any, optimizer: str, label: str, slots: int
) -> None:
    text = LOSS.format(loss="squared_error", target=FLOATS, optimizer=optimizer)
    spec = model(text.replace(" * 50", ""))
    given = draw(spec.program(), FREE)
    native = start(backend, spec, "native", "float64")
    assert native.paths()["optimizer"] == f"optax.{label}"
    found = trained(native, given)
    assert len(found) == 3 * 2 * (1 + slots)
    assert worst(found, trained(start(backend, spec, "equations", "float64"), given)) < 1e-14


def test_what_optax_has_in_another_form_is_not_claimed(backend: Backend, model: Any) -> None:
    for optimizer in ("adam_epsilon_hat", "sgd_momentum_scaled", "amsgrad", "nadam", "adagrad"):
        text = LOSS.format(loss="clipped_cross_entropy", target=FLOATS, optimizer=optimizer)
        paths = start(backend, model(text), "native", "float64").paths()
        assert set(paths.values()) == {"equations"}
        assert set(paths) == {"out", "clipped_cross_entropy", "optimizer"}


def test_an_array_and_its_tensor_share_no_memory(backend: Backend) -> None:
    backend.use("cpu", "float32")
    # Large, and often: JAX copies while its caller already goes on.
    for _ in range(20):
        array = np.zeros(4_000_000, np.float32)
        tensor = backend.tensor(array)
        array += 1
        kept = backend.numpy(tensor)
        assert not kept.any()
    kept += 2
    assert not backend.numpy(tensor).any()


@pytest.mark.parametrize(
    ("session", "given", "held"),
    [
        ("float64", "float64", "float64"),
        ("float64", "int64", "int64"),
        ("float32", "float32", "float32"),
        ("float32", "int64", "int32"),
        ("float32", "bool", "bool"),
    ],
)
def test_the_dtypes_of_tensors(backend: Backend, session: str, given: str, held: str) -> None:
    backend.use("cpu", session)
    for array in (np.ones((2, 3), given)[::-1], np.ones((), given)):
        found = backend.numpy(backend.tensor(array))
        assert (str(found.dtype), found.shape) == (held, array.shape)


def test_what_jax_would_narrow_is_refused(backend: Backend, wording: Wording) -> None:
    backend.use("cpu", "float32")
    with wording.raises(UsageError, "float64 ... float32"):
        backend.tensor(np.ones(2))
    with wording.raises(UsageError, "2147483648 ... 2147483647"):
        backend.tensor(np.array([2**31]))


def test_a_float32_session_after_a_float64_one_is_as_before(backend: Backend, model: Any) -> None:
    # Adam's bias correction is where a left-over float64 would show.
    text = LOSS.format(loss="squared_error", target=FLOATS, optimizer="adam")
    spec = model(text.replace(" * 50", ""))
    given = draw(spec.program(), FREE)
    first = trained(start(backend, spec, "native", "float32"), given)
    trained(start(backend, spec, "native", "float64"), given)
    again = trained(start(backend, spec, "native", "float32"), given)
    assert {str(a.dtype) for a in again.values()} == {"float32"}
    assert worst(again, first) == 0


def test_products_are_not_rounded_to_tf32(backend: Backend) -> None:
    backend.use("cpu", "float32")
    x = backend.tensor(np.ones((2, 2), np.float32))
    for product in (
        backend.primitives["matmul"],
        lambda a, b: backend.primitives["tensordot"](a, b, axes=((0,), (0,))),
    ):
        assert "precision = [HIGHEST, HIGHEST]" in jax.jit(product).lower(x, x).as_text()


def test_a_device_that_is_not_there_is_named(backend: Backend, wording: Wording) -> None:
    assert backend.devices()[0] == "cpu"
    with wording.raises(UsageError, "'tpu' ... cpu"):
        backend.use("tpu", "float32")


def test_versions_are_those_that_run(backend: Backend) -> None:
    found = {"jax": jax.__version__, "optax": optax.__version__, "numpy": np.__version__}
    assert found.items() <= backend.versions().items()
    assert "jaxlib" in backend.versions()


def test_a_gpu_is_not_taken_whole() -> None:
    assert plugins.environment("jax") == {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def test_listing_the_backend_imports_no_framework() -> None:
    code = "import sys, harness.backends.jax.backend; print({'jax', 'optax'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
