"""Comparison of a model's gradients with finite differences, on random arrays."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import indent
from typing import Any

import numpy as np

from harness.language.model import load_spec
from harness.oracle import oracle
from harness.program.autodiff.differentiate import Derivative, differentiate
from harness.program.ir import Port, Program, needed_nodes

SMALL = {"vocab": 11, "factors": 5, "hidden": 7, "characters": 10, "features": 4}
SMALL |= {"side": 1, "quarter": 1}
FREE = {"batch": 3, "time": 4}


@dataclass(frozen=True)
class Run:
    """A program with random arrays for its ports, which can compute its loss and gradients."""

    program: Program
    env: dict[int, Any]
    against: tuple[Port, ...]

    @property
    def sizes(self) -> dict[str, int]:
        return {**self.program.sizes, **FREE}

    def loss(self, env: dict[int, Any], dtype: str = "float64") -> Any:
        assert self.program.loss is not None
        nodes = needed_nodes(self.program.nodes, [self.program.loss])
        return oracle.run(nodes, env, self.sizes, dtype)[self.program.loss]

    def derive(self) -> Derivative:
        assert self.program.loss is not None
        return differentiate(self.program, [Port("loss", self.program.loss)], self.against)

    def gradients(self) -> list[Any]:
        derived = self.derive()
        env = {**self.env, derived.seeds[0].value: np.float64(1)}
        result = oracle.run(derived.program.nodes, env, self.sizes)
        return [result[port.value] for port in derived.gradients]


def draw_run(program: Program, seed: int = 0) -> Run:
    """Return a program with random arrays; it differentiates all float ports except targets."""
    rng = np.random.default_rng(seed)
    sizes = {**program.sizes, **FREE}
    env: dict[int, Any] = {}
    ports = (*program.inputs, *program.targets, *program.state)
    for port in (*ports, *program.parameters, *program.statistics):
        type_ = program.type_of(port)
        shape = program.shape(port, FREE)
        if type_.kind == "bool":
            env[port.value] = rng.random(shape) < 0.7
        elif type_.bound is not None:
            env[port.value] = rng.integers(0, type_.bound.resolve(sizes), shape)
        else:
            env[port.value] = rng.normal(size=shape) * 0.5
        if port.name.endswith("variance"):
            env[port.value] = np.abs(env[port.value]) + 0.5
    floats = [p for p in (*program.inputs, *program.state) if program.type_of(p).kind == "float"]
    return Run(program, env, (*program.parameters, *floats))


def model_run(name: str) -> Run:
    spec = load_spec(name)
    return draw_run(spec.program(**{n: s for n, s in SMALL.items() if n in spec.model.sizes}))


def run_of(equations: str, layers: str = "", inputs: str = "") -> Run:
    """Return a model from one or two equations; its loss is a weighted sum of ``y`` [batch, time,
    units].
    """
    text = f"""model: small
summary: s
source: s
sizes: {{features: 4, units: 3}}
inputs:
  x: {{shape: [batch, time, features]}}
  weights: {{shape: [batch, time, units]}}
{inputs}
layers:
{layers or "  cell: {layer: simple_rnn, units: units}"}
equations: |
{indent(equations, "  ")}
  total = sum(weights * y)
loss: total
"""
    return draw_run(load_spec("small", overrides={("model", "small"): text}).program())


def complex_step(run: Run, port: Port, direction: Any) -> float:
    env = {k: a.astype(complex) if a.dtype.kind == "f" else a for k, a in run.env.items()}
    env[port.value] = run.env[port.value] + 1e-30j * direction
    return float(np.imag(run.loss(env, "complex128"))) / 1e-30


def central(run: Run, port: Port, direction: Any, h: float = 1e-5) -> float:
    ends = []
    for sign in (1, -1):
        env = {**run.env, port.value: run.env[port.value] + sign * h * direction}
        ends.append(float(run.loss(env)))
    return (ends[0] - ends[1]) / (2 * h)


def worst(run: Run, difference: Any) -> float:
    """Return the largest relative error over all ports, each in one random direction."""
    rng = np.random.default_rng(1)
    errors = []
    gradients = run.gradients()
    # A gradient that is zero except for rounding (such as the bias of attention keys) has no scale
    # of its own.
    least = 1e-12 * max(float(np.max(np.abs(g))) for g in gradients)
    for port, gradient in zip(run.against, gradients, strict=True):
        direction = rng.normal(size=gradient.shape)
        scale = np.sum(np.abs(gradient * direction))
        if np.max(np.abs(gradient)) < least:
            scale = np.sum(np.abs(direction)) * least * 1e12
        assert scale > 0, f"{port.name} has no gradient at all"
        errors.append(abs(difference(run, port, direction) - np.sum(gradient * direction)) / scale)
    return max(errors)
