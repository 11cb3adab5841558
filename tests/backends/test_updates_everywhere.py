"""Optimizers with a schedule, sums over the model, norms of tensors and groups, on every backend.

The model has a layer that frameworks keep packed, so that a norm of what they hold would be that of
several parameters, and a pattern would find none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from sampling import sampled

from harness.arrays import Array
from harness.language.model import Spec, load_spec
from harness.oracle.draw import draw
from harness.oracle.oracle import Oracle
from harness.program.serial import encoded
from harness.runtime.session import Session
from harness.worker.launch import Launch
from harness.worker.remote import Remote
from harness.worker.worker import Worker

KERAS = ("keras", "keras-torch", "keras-jax")
BACKENDS = ("numpy", "torch", "jax", *KERAS)
PATHS = ("native", "equations", "derived")
MODEL = """\
model: small
summary: A layer that frameworks keep packed, and one that they do not.
source: Made for a test.
sizes: {features: 3, units: 4}
inputs:
  x: {shape: [batch, time, features]}
layers:
  rnn: {layer: lstm, units: units}
  out: {layer: dense, units: features}
equations: y = out(last(rnn(x)))
targets:
  target: {shape: [batch, features]}
loss: mean(squared_error(y, target))
"""
USES = {
    # Where a framework has the optimizer, it gets the clipped gradient and the rate of the step.
    "clipped": """\
optimizer:
  optimizer: adamw
  learning_rate: 0.01
  schedule: warmup_cosine(t, 3, 9)
  total: {square: g * g}
  gradient: g * minimum(1, 0.05 / sqrt(square))
""",
    "clipped with torch's epsilon": """\
optimizer:
  optimizer: adam
  learning_rate: 0.01
  total: {square: g * g}
  gradient: g * minimum(1, 0.05 / (sqrt(square) + 1e-6))
""",
    "clipped by Keras": """\
optimizer:
  optimizer: adam_epsilon_hat
  learning_rate: 0.01
  total: {square: g ** 2}
  gradient: where(sqrt(square) <= 0.05, g, g / sqrt(square) * 0.05)
""",
    "clipped by value": """\
optimizer:
  optimizer: sgd
  learning_rate: 0.01
  schedule: minimum(1, t / 3)
  gradient: maximum(minimum(g, 0.01), -0.01)
""",
    # A norm of each is none of torch and JAX; on TensorFlow several gates of Keras are one tensor.
    "clipped each": """\
optimizer:
  optimizer: sgd
  learning_rate: 0.01
  gradient: g * minimum(1, 0.05 / sqrt(sum(g * g)))
""",
    "lamb": "optimizer: {optimizer: lamb, learning_rate: 0.01, weight_decay: 0.1}\n",
    "grouped": """\
optimizer:
  optimizer: adam_epsilon_hat
  learning_rate: 0.01
  beta_1: 0.9 - 0.5 / t
  total: {square: g * g}
  gradient: g / sqrt(mean(g * g)) * minimum(1, 0.05 / sqrt(square))
  groups:
    - {parameters: ["*.b_*", out.b], schedule: 0}
    - {parameters: rnn.W_*, beta_2: 0.9}
""",
    # Rows and columns of every gate, of which frameworks keep four in one tensor.
    "adafactor": "optimizer: {optimizer: adafactor, learning_rate: 0.01}\n",
    "muon": """\
optimizer:
  optimizer: muon
  learning_rate: 0.02
  weight_decay: 0.1
  average: 0.5
  accumulate: 2
  total: {square: g * g}
  gradient: g * minimum(1, 0.05 / sqrt(square))
  groups:
    - {parameters: out.W, matrices: false}
    - {parameters: rnn.W_f, momentum: 0.5}
""",
}
# A framework's own that is no other than the definition. torch keeps the gates of a layer in one
# tensor, which has another norm; JAX has no layers of its own.
CLAIMED = {
    ("torch", "clipped"): "torch.optim.AdamW",
    ("jax", "clipped"): "optax.clip_by_global_norm, optax.adamw",
    ("torch", "clipped with torch's epsilon"): ("torch.nn.utils.clip_grad_norm_, torch.optim.Adam"),
    ("jax", "clipped with torch's epsilon"): "optax.adam",
    ("torch", "clipped by Keras"): "torch.optim.Adam",
    ("keras", "clipped by Keras"): "keras.optimizers.Adam(global_clipnorm)",
    ("keras-jax", "clipped by Keras"): "keras.optimizers.Adam(global_clipnorm)",
    # Keras' minimum of a tensor in float64 and a number is float32's there.
    ("keras-torch", "clipped by Keras"): "keras.optimizers.Adam",
    ("torch", "clipped by value"): "torch.nn.utils.clip_grad_value_, torch.optim.SGD",
    ("jax", "clipped by value"): "optax.clip, optax.sgd",
    **{(name, "clipped by value"): "keras.optimizers.SGD(clipvalue)" for name in KERAS},
    ("jax", "clipped each"): "optax.sgd",
    ("keras-jax", "clipped each"): "keras.optimizers.SGD(clipnorm)",
    ("keras-torch", "clipped each"): "keras.optimizers.SGD",
    ("jax", "lamb"): "optax.lamb",
}
RATE = 0.01
STEPS = 4


@pytest.fixture(scope="module", params=sampled(BACKENDS, ("numpy", "torch", "jax")))
def remote(request: pytest.FixtureRequest) -> Iterator[Remote]:
    with Worker(Launch(request.param)) as worker:
        yield Remote(worker, 600.0)


def spec_of(use: str) -> Spec:
    return load_spec("small", overrides={("model", "small"): MODEL + USES[use]})


def batches_of(spec: Spec) -> list[dict[str, Any]]:
    drawn = [draw(spec.program(), 3, 4, seed) for seed in range(STEPS)]
    return [{"inputs": m.inputs, "targets": m.targets, "learning_rate": RATE} for m in drawn]


def expected(spec: Spec, times: int = 1) -> dict[str, Array]:
    """What the oracle makes of parameters and slots."""
    programs = spec.program("training"), spec.program("inference")
    session = Session(Oracle(), *programs, path="derived", dtype="float64", rule=spec.update)
    session.load(draw(programs[0], 3, 4, 0).parameters, {})
    for batch in batches_of(spec) * times:
        session.step(batch["inputs"], {}, batch["targets"], RATE)
    return flat(session.read())


def flat(found: Mapping[str, Any]) -> dict[str, Array]:
    slots = {f"{n} {s}": a for s, arrays in found["slots"].items() for n, a in arrays.items()}
    return {**found["parameters"], **slots}


def furthest(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> float:
    assert found.keys() == wanted.keys()
    pairs = [(found[n], wanted[n]) for n in wanted]
    assert all(a.shape == b.shape for a, b in pairs)
    return max(float(np.max(np.abs(a - b)) / (np.max(np.abs(b)) or 1.0)) for a, b in pairs)


@pytest.mark.parametrize("use", USES)
def test_steps_are_those_of_the_oracle(remote: Remote, use: str) -> None:
    spec, name = spec_of(use), remote.worker.launch.backend
    programs, wanted = (spec.program("training"), spec.program("inference")), expected(spec)
    for path in PATHS:
        paths = remote.open(*programs, spec.update, path, "float64", "cpu")
        claimed = CLAIMED.get((name, use), "equations") if path == "native" else "equations"
        assert paths["optimizer"] == claimed
        remote.load(draw(programs[0], 3, 4, 0))
        made = remote.train(batches_of(spec), {})
        assert furthest(flat(made[-1]), wanted) < 1e-12, path


@pytest.mark.parametrize("use", USES)
def test_whole_steps_are_those_of_the_oracle(remote: Remote, use: str) -> None:
    spec = spec_of(use)
    programs, wanted = (spec.program("training"), spec.program("inference")), expected(spec, 2)
    for path in PATHS:
        given = draw(programs[0], 3, 4, 0)
        remote.call(
            "prepare",
            training=encoded(programs[0]),
            inference=encoded(programs[1]),
            rule=encoded(spec.update),
            path=path,
            mode="train",
            dtype="float64",
            device="cpu",
            quick=True,
            parameters=given.parameters,
            statistics={},
            state={},
            batches=batches_of(spec),
            learning_rate=RATE,
        )
        remote.call("throughput", first=0, count=2 * STEPS)
        assert furthest(flat(remote.call("parameters")), wanted) < 1e-12, path
