"""Losses that go over steps: what their states come to, ctc by hand, and what is refused."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from needed import need
from sampling import sampled
from small_models import SPOKEN
from two_paths import by_oracle, draw, start, worst
from wording import Wording

from harness.errors import SpecError
from harness.language.checksums import checksum
from harness.language.library import Library
from harness.language.model import Spec, load_spec
from harness.runtime.plugins import load

LOSS = """\
loss: leak
summary: Of a test.
source: Of a test.
inputs:
  x: [batch, time]
  z: [batch, time]
attributes: {rate: 0.5}
state:
  h: {shape: [batch]}
scan:
  over: {x_t: x, z_t: z}
  step: h = rate * h + x_t * z_t
equations: y = h * h
output: y
"""
PLAIN = """\
model: own
summary: Of a test.
source: Of a test.
sizes: {}
inputs:
  x: {shape: [batch, time]}
layers: {}
equations: y = 2 * x
targets:
  z: {shape: [batch, time]}
loss: sum(leak(y, z))
"""


def leaking(text: str = LOSS, model: str = PLAIN) -> Spec:
    return load_spec("own", overrides={("model", "own"): model, ("loss", "leak"): text})


def value(spec: Spec, x: np.ndarray, z: np.ndarray) -> float:
    given = {"inputs": {"x": x}, "targets": {"z": z}, "parameters": {}, "statistics": {}}
    found = by_oracle(spec.program(), {**given, "state": {}}, {"batch": len(x), "time": len(x.T)})
    return float(found["loss"])


def test_the_equations_read_what_the_states_are_after_the_last_step() -> None:
    x, z = np.random.default_rng(0).normal(size=(2, 3, 4))
    h = np.zeros(3)
    for step in range(4):
        h = 0.5 * h + 2 * x[:, step] * z[:, step]
    assert value(leaking(), x, z) == pytest.approx(float(np.sum(h * h)), rel=1e-14)
    ones = leaking(LOSS.replace("[batch]}\nscan", "[batch], init: ones}\nscan"))
    assert value(ones, x, z) == pytest.approx(float(np.sum((h + 0.5**4) ** 2)), rel=1e-14)


def all_readings(scores: np.ndarray, labels: list[int]) -> float:
    """The sum over every way to read the steps, one by one: ``[steps, classes]``."""
    total = 0.0
    for path in product(range(scores.shape[1]), repeat=len(scores)):
        kept = [c for n, c in enumerate(path) if n == 0 or c != path[n - 1]]
        if [c for c in kept if c] == labels:
            total += np.exp(sum(scores[step, c] for step, c in enumerate(path)))
    return -float(np.log(total)) if total else 0.0


@pytest.mark.parametrize("labels", [[1, 2], [2, 2], [3], []])
@pytest.mark.parametrize("length", [4, 2, 1, 0])
def test_ctc_is_the_sum_over_all_readings(labels: list[int], length: int) -> None:
    spec = load_spec("spoken", overrides={("model", "spoken"): SPOKEN})
    program, free = spec.program(), {"batch": 1, "time": 4}
    given = draw(program, free, seed=length)
    given["inputs"]["lengths"][:] = length
    given["targets"]["counts"][:] = len(labels)
    given["targets"]["labels"][:] = [[*labels, 1, 1][:2]]
    found = by_oracle(program, given, free)
    logits = found["output.logits"][0]
    scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = all_readings(scores[:length], labels)
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", sampled(["torch", "jax", "numpy"], ["numpy"]))
def test_backends_have_its_gradient_on_every_path(name: str) -> None:
    need(name)
    from jax_config import kept_config

    spec = load_spec("spoken", overrides={("model", "spoken"): SPOKEN})
    free = {"batch": 5, "time": 6}
    given = draw(spec.program(), free)
    given["inputs"]["lengths"][:3] = [6, 0, 1]
    wanted = by_oracle(spec.program(), given, free)
    with kept_config():
        for path in ("equations", "derived") if name != "numpy" else ("derived",):
            session = start(load(name), spec, path, "float64")
            session.load(given["parameters"], given["statistics"])
            batch = (given["inputs"], given["state"], given["targets"])
            results, gradients = session.gradients("training", *batch)
            found = {n: a for n, a in {**results, **gradients}.items() if n in wanted}
            assert len(found) >= 4
            assert worst(found, wanted) < 1e-12


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "scan:\n  over: {x_t: x, z_t: z}\n  step: h = rate * h + x_t * z_t\n",
            "",
            "'scan'",
        ),
        ("state:\n  h: {shape: [batch]}\n", "", "'scan' ... 'state'"),
        ("z_t: z}", "z_t: w}", "'w'"),
        ("state:\n", "state:\n  g: {shape: [batch]}\n", "'g'"),
        ("rate * h + x_t", "rate + x_t", "'h'"),
        ("x_t * z_t\n", "x_t\n", "'z_t'"),
        ("{shape: [batch]}", "{shape: [batch, 1]}", ""),
        ("z_t: z}", "h: z}", "'h'"),
        ("y = h * h", "y = h * x_t", "'x_t'"),
    ],
)
def test_what_is_wrong_is_told(old: str, new: str, told: str, wording: Wording) -> None:
    assert old in LOSS
    with wording.raises(SpecError, told):
        leaking(LOSS.replace(old, new))


def test_what_a_scan_goes_over_has_one_length(wording: Wording) -> None:
    text = LOSS.replace("z: [batch, time]", "z: [batch, other]")
    model = PLAIN.replace("[batch, time]}\nloss", "[batch, 3]}\nloss")
    with wording.raises(SpecError, "3"):
        leaking(text, model)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("x_t * z_t", "x_t * z_t * 2", False),
        ("{shape: [batch]}", "{shape: [batch], init: ones}", False),
        ("{x_t: x, z_t: z}", "{x_t: z, z_t: x}", False),
        ("y = h * h", "y = h", False),
        ("h = rate * h + x_t * z_t", "|\n    moved = x_t * z_t\n    h = rate * h + moved", True),
        ("rate: 0.5", "rate: 0.25", True),
    ],
)
def test_what_a_loss_means_is_what_its_steps_compute(old: str, new: str, same: bool) -> None:
    texts = (LOSS, LOSS.replace(old, new))
    one, other = (checksum(Library((), {("loss", "leak"): text}), "loss", "leak") for text in texts)
    assert (one == other) is same
