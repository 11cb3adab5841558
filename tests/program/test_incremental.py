"""A step by itself: the same as the last step of the whole, for all that reads no later ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from wording import Wording

from harness.arrays import Array
from harness.language.initial_values import initial_parameters, initial_statistics
from harness.language.model import Spec, load_spec
from harness.oracle.oracle import Oracle
from harness.program.incremental import NoRow, incremental
from harness.program.ir import Program
from harness.program.signature import group_of
from harness.runtime.session import Session

STEPS = 7
SPEC = """
model: own
summary: A test.
source: A test.
sizes: {{features: 3, hidden: 4}}
inputs:
  x: {{shape: [batch, time, features]}}
  given: {{shape: [batch, hidden]}}
layers:
  one: {{layer: dense, units: hidden}}
  conv: {{layer: causal_conv1d, kernel: 3}}
equations: |
  a = conv(one(x)) + given[:, None]
{equations}
"""
# What the library's models do not have, and needs no later step.
ALONE = {
    "sums along another axis": "y = cumsum(a, axis=2)",
    "joined, cut and turned": "y = concat([a[..., 1:], a[..., ::-1]], axis=-1)",
    "entries chosen along another axis": "v, i = top_k(a, 2)\n  y = v * take_along_axis(a, i)",
    "outer products": "y = sum(a[:, :, :, None] * a[:, :, None, :], axis=3)",
    "counted": "y = a * (1 + astype(arange(time)))[:, None]",
    "the first steps": "y = where((astype(arange(time)) < 3)[:, None], a, given[:, None])",
    "pairs up to here": """s = a @ permute_dims(a, axes=[0, 2, 1])
  y = softmax(where(arange(time)[None, :] <= arange(time)[:, None], s, -1.0e30)) @ a""",
}
TOGETHER = {
    "a mean over the steps": (
        "y = a - mean(a, axis=1, keepdims=true)",
        "does not have exactly one time axis",
    ),
    "from the end": ("y = reverse(a)", "flip cannot be computed for one time step"),
    "the last": ("y = last(a)", "does not have exactly one time axis"),
    "sums over the steps": ("y = cumsum(a, axis=1)", "cannot be computed for one time step"),
    "the one before": (
        "y = concat([a[:, :1], a[:, :-1]], axis=1)",
        "cannot be computed for one time step",
    ),
    "windows around": (
        "y = sum(windows(a, axes=[1], size=3, padding=1), axis=2)",
        "windows that do not end at the current step",
    ),
}


def session(spec: Spec, program: Program) -> Session:
    training = spec.program("training")
    made = Session(Oracle(), training, program, dtype="float64")
    parameters = initial_parameters(training, 0)
    for number, (name, array) in enumerate(parameters.items()):
        parameters[name] = array + 0.3 * np.random.default_rng(number).normal(size=array.shape)
    made.load(parameters, initial_statistics(training))
    return made


def by_steps(spec: Spec, output: str, inputs: dict[str, Array]) -> list[Array]:
    """What each step gives, with what is not written yet as large as anything."""
    program = incremental(spec.program("inference"), output, STEPS)
    one = session(spec, program)
    state = {p.name: np.full(program.shape(p, {"batch": 2}), 50.0) for p in program.state}
    found = []
    for step in range(STEPS):
        given = {n: a[:, step : step + 1] if a.shape[1] == STEPS else a for n, a in inputs.items()}
        results = one.forward("inference", {**given, "position": np.array([step])}, state)
        state = group_of(results, "state.")
        found.append(results[f"output.{output}"])
    return found


def whole(spec: Spec, output: str, inputs: dict[str, Array]) -> list[Array]:
    """The last step of each beginning."""
    one = session(spec, spec.program("inference"))
    cut = [
        {n: a[:, : step + 1] if a.shape[1] == STEPS else a for n, a in inputs.items()}
        for step in range(STEPS)
    ]
    return [one.forward("inference", c, {})[f"output.{output}"][:, -1:] for c in cut]


@pytest.mark.parametrize(
    ("model", "output"),
    [
        ("gpt", "next_chars"),
        ("llama", "next_chars"),
        ("mamba", "logits"),
        ("moe", "next_chars"),
        ("lesson6/sequence_rnn", "hidden_states"),
    ],
)
def test_models_of_the_next_character_read_one_at_a_time(model: str, output: str) -> None:
    spec = load_spec(model)
    (name,) = (port.name for port in spec.program("inference").inputs)
    text = {name: np.random.default_rng(0).integers(0, 20, size=(2, STEPS))}
    for step, expected in zip(by_steps(spec, output, text), whole(spec, output, text), strict=True):
        np.testing.assert_allclose(step, expected, rtol=1e-12, atol=1e-13)


def own(folder: Path, equations: str) -> Spec:
    (folder / "own.yaml").write_text(SPEC.format(equations=f"  {equations}"))
    return load_spec(str(folder / "own.yaml"))


@pytest.mark.parametrize("equations", ALONE.values(), ids=ALONE)
def test_what_needs_no_later_step_is_made_alone(equations: str, tmp_path: Path) -> None:
    spec = own(tmp_path, equations)
    random = np.random.default_rng(0)
    inputs = {"x": random.normal(size=(2, STEPS, 3)), "given": random.normal(size=(2, 4))}
    for step, expected in zip(by_steps(spec, "y", inputs), whole(spec, "y", inputs), strict=True):
        np.testing.assert_allclose(step, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("equations", "why"), TOGETHER.values(), ids=TOGETHER)
def test_what_needs_others_says_so(equations: str, why: str, tmp_path: Path) -> None:
    program = own(tmp_path, equations).program("inference")
    with pytest.raises(NoRow, match=why):
        incremental(program, "y", STEPS)


def test_what_reads_later_steps_unseen_is_wrong_and_shows(tmp_path: Path) -> None:
    """Attention without a mask: nothing says that it may not be made alone, but what is not written
    yet is read."""
    spec = own(tmp_path, "y = softmax(a @ permute_dims(a, axes=[0, 2, 1])) @ a")
    random = np.random.default_rng(0)
    inputs = {"x": random.normal(size=(2, STEPS, 3)), "given": random.normal(size=(2, 4))}
    first, expected = by_steps(spec, "y", inputs)[0], whole(spec, "y", inputs)[0]
    assert abs(first - expected).max() > 1


def test_a_model_with_a_state_is_one_step_already(wording: Wording) -> None:
    with wording.raises(NoRow):
        incremental(load_spec("lesson6/stateful_lstm").program("inference"), "next_chars", STEPS)


def test_a_step_grows_with_the_depth_alone() -> None:
    """And what it keeps with the steps: keys and values of each block."""
    made = [
        incremental(load_spec("gpt").program("inference", depth=d), "logits", 9) for d in (2, 4)
    ]
    assert [len(one.state) for one in made] == [4, 8]
    two, four = (len(one.nodes) for one in made)
    assert four < 2 * two
