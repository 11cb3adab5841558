"""Functions that make plans of models and arrays for plans, and run plans with numpy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from harness.backends.numpy.fused import FUSED
from harness.backends.numpy.primitives import PRIMITIVES
from harness.language.model import load_spec
from harness.oracle.draw import draw
from harness.program.plan import Plan, forward_plan, training_plan
from harness.runtime.interpreter import Interpreter

Arrays = dict[str, Any]
BATCH, TIME = 6, 8


def plan_of(name: str, mode: str, dtype: str, fused: Iterable[str] = ()) -> Plan:
    spec = load_spec(name)
    program = spec.program("training" if mode == "train" else "inference")
    sizes = {**program.sizes, "batch": BATCH, "time": TIME}
    if mode == "train":
        return training_plan(program, spec.update, sizes, dtype, fused, learning_rate=0.01)
    return forward_plan(program, sizes, dtype, fused)


def arrays_of(name: str, mode: str, plan: Plan, seed: int) -> Arrays:
    """Return an array for every input of a plan; slots are zeros."""
    program = load_spec(name).program("training" if mode == "train" else "inference")
    material = draw(program, plan.sizes["batch"], TIME, seed)
    found = dict(material.parameters)
    for prefix in ("statistics", "state"):
        found |= {f"{prefix}.{n}": a for n, a in getattr(material, prefix).items()}
    found |= {f"input.{n}": a for n, a in material.inputs.items()}
    found |= {f"target.{n}": a for n, a in material.targets.items()}
    found["step"] = np.array(1.0)
    result = {}
    for port, value in plan.inputs.items():
        array = found.get(port, np.zeros(plan.shape(value)))
        dtype = np.int64 if plan.types[value].kind == "index" else plan.dtype
        axes = plan.orders.get(port, range(array.ndim))
        result[port] = np.array(array.transpose(axes), dtype, order="C")
    return result


def run_plan(plan: Plan, arrays: Arrays) -> Arrays:
    """Run a plan with numpy, one operation after another, and return its results."""

    def scalar(value: float) -> Any:
        return np.asarray(value, plan.dtype)

    walker = Interpreter({**PRIMITIVES, **FUSED}, plan.sizes, plan.dtype, scalar)
    with np.errstate(all="ignore"):
        env = walker.run(plan.nodes, {v: arrays[n] for n, v in plan.inputs.items()})
    return {n: np.array(env[v]) for n, v in plan.outputs.items()}


def assert_close(found: Arrays, wanted: Arrays, rtol: float) -> None:
    """Assert that arrays differ by at most ``rtol`` of the largest entry; NaN must be equal."""
    assert found.keys() == wanted.keys()
    for name, want in wanted.items():
        finite = np.abs(want[np.isfinite(want)])
        largest = finite.max() if finite.size else 1.0
        got = np.asarray(found[name])
        np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * largest, err_msg=name)
