"""Shared code for tests of exported files: weights, models, and the oracle's outputs."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import harness
from harness.convert.formats import Exported, fitted
from harness.language.model import Spec
from harness.oracle.draw import draw
from harness.oracle.oracle import Oracle
from harness.program.serial import encode
from harness.runtime.answers import Arguments
from harness.runtime.session import Session
from harness.worker.worker import Worker

Arrays = dict[str, Any]
SMALL = {"vocab": 11, "factors": 5, "hidden": 7, "characters": 10}
# The allowed relative error of an output. float32 rounds to 6e-8, and recurrent layers accumulate
# rounding errors.
ALLOWED = {"float32": 1e-5, "float64": 1e-12}

EVERYTHING = """model: everything
summary: The forms that no model of lesson 6 has.
source: none
sizes: {vocab: 6, factors: 3, units: 4}
inputs:
  chars: {shape: [batch, time], index: vocab}
  x: {shape: [batch, time, factors]}
  label: {shape: [batch], index: vocab}
state:
  h: {shape: [batch, units]}
layers:
  add: {layer: embedding, rows: vocab, units: factors}
  after: {layer: gru_reset_after, units: units}
  before: {layer: gru, units: units}
  memory: {layer: lstm, units: units, gate: hard_sigmoid_sixth}
  plain: {layer: simple_rnn, units: units}
  norm: {layer: batch_norm, momentum: 0.75, epsilon: 0.01}
  pair: {layer: pair, units: units, rate: 0.25}
  centred: {layer: centred}
  scores: {layer: dense, units: vocab, activation: log_softmax}
equations: |
  a, h = after(add(chars), h=h)
  b = reverse(before(reverse(a)))
  c = norm(plain(memory(b)))
  d, kept = pair(x, c)
  again = pair(add(chars), d)
  e = centred(centred(c)) + d[:, -1:] - again[:, :1]
  rest = concat([x[:, 1:], x[:, :-1]], axis=1)
  level = mean(rest, axis=1)
  total = mean(x) + sum(x, axis=[0, 1], keepdims=1)
  y = scores(last(e) + first(c))
  picked = take_along_axis(y, label)
  hot = one_hot(label, vocab) * y
  turned = permute_dims(expand_dims(level, axis=0), axes=[2, 0, 1])
  bent = where(level < 0.1, sqrt(exp(level)), log(1 + level ** 2) / 2)
  flags = where(level <= total, -level, tanh(level)) * max(x, axis=1)
  clipped = hard_sigmoid_fifth(sigmoid(level)) - relu(stop_gradient(level / 3 + 0.1) - 0.7)
  scaled = log(0.3 * exp(level)) * total
targets:
  target: {shape: [batch], index: vocab}
loss: mean(sparse_cross_entropy(y, target))
optimizer: {optimizer: sgd}
"""
LAYERS = {
    "layers/pair": """layer: pair
summary: Two sequences at once; what goes out is not what is carried, which starts as ones.
source: none
inputs:
  x: [batch, time, features]
  y: [batch, time, units]
attributes: {units: size, rate: 0.5, activation: tanh}
parameters:
  W: {shape: [features, units], init: glorot_uniform}
  name: {shape: [units], init: zeros}
state:
  h: {shape: [batch, units], init: ones}
scan:
  over: {x_t: x, y_t: y}
  step: |
    n = activation(x_t @ W + name)
    h = h + rate * (n - h) * y_t
    out = h * h - (n - y_t) - (h - n) / (2 / rate)
  output: out
""",
    "layers/centred": """layer: centred
summary: Less the mean of the batch in training, less a moving mean in inference.
source: none
inputs:
  x: [..., features]
parameters:
  gain: {shape: [features], init: ones}
statistics:
  centre: {shape: [features], init: zeros}
training: |
  middle = mean(x, axis=...)
  centre = 0.5 * centre + 0.5 * middle
  y = gain * (x - middle)
inference: y = gain * (x - centre)
output: y
""",
    "functions/first": """function: first
summary: The first step of a sequence.
source: none
inputs: {x: [batch, time, ...]}
equations: y = x[:, 0]
output: y
""",
}


def everything(folder: Path) -> Spec:
    """Write a model with features that lesson6 models lack, and its definitions, to ``folder``."""
    for name, text in LAYERS.items():
        file = folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "everything.yaml").write_text(EVERYTHING)
    return harness.load(str(folder / "everything.yaml"), [folder])


@dataclass(frozen=True)
class Case:
    """A model with random weights, at small sizes."""

    exported: Exported
    material: Arguments

    @staticmethod
    def of(spec: Spec, dtype: str, **changed: Any) -> Case:
        """Return a case with random weights; ``changed`` replaces parameters by name."""
        sizes = {n: size for n, size in SMALL.items() if n in spec.program().sizes}
        training, inference = spec.program(**sizes), spec.program("inference", **sizes)
        material = draw(inference, 2, 2, seed=3)
        parameters = cast({**material.parameters, **changed}, dtype)
        statistics = cast(material.statistics, dtype)
        exported = Exported(
            spec.name, training, inference, parameters, statistics, ("\0", "é"), {"seed": 3}
        )
        return Case(exported, material)

    def batch(self, batch: int, time: int) -> tuple[Arrays, Arrays]:
        """Return random inputs and state."""
        drawn = draw(self.exported.inference, batch, time, seed=7)
        return drawn.inputs, drawn.state

    def wanted(self, inputs: Arrays, state: Arrays) -> Arrays:
        """Return the oracle's outputs and new state."""
        programs = self.exported.training, self.exported.inference
        session = Session(Oracle(), *programs, path="equations", dtype="float64")
        session.load(self.exported.parameters, self.exported.statistics)
        results = session.forward("inference", inputs, state)
        return {n: a for n, a in results.items() if n.startswith(("output.", "state."))}


def cast(arrays: Mapping[str, Any], dtype: str) -> Arrays:
    """Return C-contiguous arrays; floats have the given dtype."""
    return {
        name: np.asarray(array, dtype if array.dtype.kind == "f" else None, order="C")
        for name, array in arrays.items()
    }


def ask(worker: Worker, verb: str, **payload: Any) -> Any:
    """Return the answer of a format's process to a call; assert that the call does not fail."""
    outcome = worker.call(verb, payload)
    assert outcome.ok, outcome.traceback or outcome.cause
    return outcome.value


def written(worker: Worker, case: Case, path: Path) -> list[Path]:
    """Write a case in a format, and return the files."""
    return [Path(f) for f in ask(worker, "write", exported=case.exported.payload(), path=str(path))]


def outputs(worker: Worker, case: Case, path: Path, batch: int = 3, time: int = 4) -> float:
    """Return the error of a file's outputs against the oracle."""
    inputs, state = case.batch(batch, time)
    found = ask(worker, "outputs", path=str(path), inputs=inputs, state=state)
    return error(found, case.wanted(inputs, state))


def read(worker: Worker, case: Case, path: Path) -> Any:
    """Return the parameters and statistics of a file."""
    program = fitted(case.exported.training, case.exported.inference)
    return ask(worker, "read", path=str(path), training=encode(program))


def assert_comes_back(worker: Worker, case: Case, path: Path) -> None:
    """Assert that the arrays of a file are bit-for-bit equal to the written arrays."""
    found = read(worker, case, path)
    assert_same(found["parameters"], case.exported.parameters)
    assert_same(found["statistics"], case.exported.statistics)


def refused(worker: Worker, verb: str, **payload: Any) -> str:
    """Return the message for a rejected call."""
    outcome = worker.call(verb, payload)
    assert outcome.cause.startswith("UsageError: "), outcome.traceback or outcome
    return outcome.cause


def error(found: Arrays, wanted: Arrays) -> float:
    """Return the largest error of all outputs, each relative to the largest entry of the output."""
    assert found.keys() == wanted.keys()
    assert found
    worst = 0.0
    for name, array in wanted.items():
        assert found[name].shape == array.shape, name
        if array.dtype.kind == "b":
            assert found[name].dtype.kind == "b", name
            np.testing.assert_array_equal(found[name], array)
            continue
        scale = max(float(np.max(np.abs(array))), 1e-30)
        worst = max(worst, float(np.max(np.abs(found[name] - array))) / scale)
    return worst


def assert_same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Assert that arrays have the same names, dtypes, shapes and bits."""
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


def changed(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Return a copy of a .keras file with changed members; the module next to it is copied too."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    copy = path.with_name("changed.keras")
    with zipfile.ZipFile(copy, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    if path.with_suffix(".py").exists():
        copy.with_suffix(".py").write_bytes(path.with_suffix(".py").read_bytes())
    return copy
