"""Layers that return several values, and chains of such layers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from nested_specs import loaded, model, refused
from wording import Wording

from harness.oracle import oracle
from harness.program.ir import needed_nodes

COUPLING = """\
layer: coupling
summary: Scales one half of the features, with the logarithm of the determinant.
source: Made for a test.
inputs: {x: [batch, time, features]}
layers:
  scale: {layer: dense, units: features - 2}
equations: |
  s = tanh(scale(x[:, :, :2]))
  z = concat([x[:, :, 2:] * exp(s), x[:, :, :2]], axis=-1)
  log_det = sum(s, axis=-1)
output: [z, log_det]
"""
STEP = """\
layer: step
summary: A coupling layer that adds to the sum.
source: Made for a test.
inputs: {x: [batch, time, features], total: [batch, time]}
layers:
  inner: {layer: coupling}
equations: |
  z, d = inner(x)
  sum_so_far = total + d
output: [z, sum_so_far]
"""
AFFINE = """\
layer: affine
summary: A layer with parameters of its own, whose second output is its input.
source: Made for a test.
inputs: {x: [batch, time, features]}
parameters: {s: {shape: [features], init: ones}}
equations: |
  z = x * s
  before = x
output: [z, before]
"""
LAYERS = {"coupling": COUPLING, "step": STEP, "affine": AFFINE}
START = "start = 0 * sum(x, axis=-1)\n"


def values(layers: str, equations: str) -> list[np.ndarray]:
    """Return the outputs of a model for the same weights and inputs, in float64."""
    program = loaded(model(layers, equations), **LAYERS).program("inference")
    draw = np.random.default_rng(1).normal
    env = {port.value: draw(size=program.shape(port)) for port in program.parameters}
    env[program.inputs[0].value] = np.random.default_rng(2).normal(size=(2, 3, 4))
    wanted = [port.value for port in program.outputs]
    nodes = needed_nodes(program.nodes, wanted)
    found = oracle.run(nodes, env, {**program.sizes, "batch": 2, "time": 3})
    return [found[value] for value in wanted]


def test_each_output_gets_its_name() -> None:
    z, d, y = values("a: {layer: coupling}", "z, d = a(x)\ny = z + d[:, :, None]")
    assert (z.shape, d.shape) == ((2, 3, 4), (2, 3))
    assert np.array_equal(y, z + d[:, :, None])


def test_a_single_name_gets_the_first_output() -> None:
    (whole,) = values("a: {layer: coupling}", "y = a(x)")
    z, *_ = values("a: {layer: coupling}", "z, d = a(x)\ny = z + d[:, :, None]")
    assert np.array_equal(whole, z)
    (inside,) = values("a: {layer: coupling}", "y = relu(a(x))")
    assert np.array_equal(inside, np.maximum(z, 0))


def test_only_the_second_output_may_be_read() -> None:
    program = loaded(
        model("a: {layer: coupling}", "z, d = a(x)\ny = x + d[:, :, None]").replace(
            "targets:", "outputs: [y]\ntargets:"
        ),
        **LAYERS,
    ).program("inference")
    assert [port.name for port in program.outputs] == ["y"]


def test_a_layer_may_read_only_the_second_result() -> None:
    step = STEP.replace("output: [z, sum_so_far]", "output: sum_so_far")
    text = model("a: {layer: step}", START + "y = x + a(x, start)[:, :, None]")
    program = loaded(text, **(LAYERS | {"step": step})).program("inference")
    assert [port.name for port in program.outputs] == ["start", "y"]


def test_an_output_can_be_the_input() -> None:
    before = values("a: {layer: affine}", "h, before = a(x)\ny = h + before")[1]
    assert np.array_equal(before, np.random.default_rng(2).normal(size=(2, 3, 4)))


def test_a_chain_passes_outputs_to_inputs() -> None:
    together = values("a: {layer: step, repeat: 3}", START + "y, total = a(x, start)")
    names = [f"step_{n}" for n in range(3)]
    calls = [START.strip()]
    for before, own in pairwise(["", *names]):
        given = f"{before}_z, {before}_t" if before else "x, start"
        results = "y, total" if own == names[-1] else f"{own}_z, {own}_t"
        calls.append(f"{results} = {own}({given})")
    apart = values("\n  ".join(f"{n}: {{layer: step}}" for n in names), "\n".join(calls))
    assert [a.shape for a in together] == [(2, 3), (2, 3, 4), (2, 3)]
    assert all(np.array_equal(a, b) for a, b in zip(together[1:], apart[-2:], strict=True))


@pytest.mark.parametrize(
    ("layers", "equations", "changed", "wanted"),
    [
        ("a: {layer: coupling}", "y, d, e = a(x)", {}, "10:3 ... 2 results ... 'z, log_det = a("),
        ("a: {layer: coupling, repeat: 2}", "y, d = a(x)", {}, "8:24 ... 2 outputs ... 1 input"),
        (
            "a: {layer: coupling}",
            "y, d = a(x)",
            {"coupling": COUPLING.replace("[z, log_det]", "[z, z]")},
            "<layers/coupling.yaml>:11:13 ... 'z'",
        ),
        (
            "a: {layer: coupling}",
            "y, d = a(x)",
            {"coupling": COUPLING.replace("[z, log_det]", "[z, x]")},
            "<layers/coupling.yaml>:11:13 ... 'x'",
        ),
        (
            "a: {layer: coupling}",
            "y, d = a(x)",
            {"coupling": COUPLING.replace("[z, log_det]", "[z, log_dett]")},
            "<layers/coupling.yaml>:11:13 ... 'log_dett' ... 'log_det'",
        ),
        (
            "a: {layer: coupling}",
            "y, d = a(x)",
            {"coupling": COUPLING.replace("[z, log_det]", "[]")},
            "<layers/coupling.yaml>:11:9",
        ),
        ("a: {layer: coupling}", "y = x\nz, d = a(x)", {}, "11:3 ... 'z'"),
    ],
)  # fmt: skip
def test_mistakes_are_reported_with_their_place(
    layers: str, equations: str, changed: dict[str, str], wanted: str, wording: Wording
) -> None:
    text = model(layers, equations).replace("targets:", "outputs: [y]\ntargets:")
    wording(refused(text, **(LAYERS | changed)), wanted)
