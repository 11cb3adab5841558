"""Comparison of a model on two paths of a backend, or on one path and the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.language.model import Spec
from harness.oracle import oracle
from harness.program.autodiff.differentiate import differentiate
from harness.program.ir import Port, Program
from harness.runtime.backend import Backend
from harness.runtime.session import Session, make_session

Arrays = dict[str, Any]


def draw(program: Program, free: Mapping[str, int], seed: int = 0) -> dict[str, Arrays]:
    """Return random arrays for all inputs, parameters and states; variances are positive."""
    rng = np.random.default_rng(seed)

    def array(port: Port) -> Any:
        type_, shape = program.type_of(port), program.shape(port, free)
        if type_.bound is not None:
            return rng.integers(0, type_.bound.resolve({**program.sizes, **free}), shape)
        found = rng.normal(size=shape).astype("float32").astype("float64")
        return np.abs(found) + 0.5 if port.name.endswith("variance") else found

    groups = ("inputs", "state", "targets", "parameters", "statistics")
    return {group: {p.name: array(p) for p in getattr(program, group)} for group in groups}


def start(backend: Backend, spec: Spec, path: str, dtype: str, device: str = "cpu") -> Session:
    backend.use(device, dtype)
    programs = (spec.program("training"), spec.program("inference"))
    return make_session(backend, *programs, path=path, dtype=dtype, rule=spec.update)


def everything(session: Session, given: dict[str, Arrays], steps: int = 3) -> Arrays:
    """Return all results of a session by name: results, gradients, and values after training."""
    session.load(given["parameters"], given["statistics"])
    batch = (given["inputs"], given["state"], given["targets"])
    found: Arrays = {}
    rng = np.random.default_rng(9)
    for phase in ("training", "inference"):
        results = session.forward(phase, *batch)
        found |= {f"{phase} {n}": a for n, a in results.items()}
        _, gradients = session.gradients(phase, *batch)
        found |= {f"{phase} gradient {n}": a for n, a in gradients.items()}
        cotangents = {
            n: rng.normal(size=a.shape)
            for n, a in results.items()
            if n.startswith(("output.", "state."))
        }
        _, gradients = session.gradients(phase, *batch, cotangents)
        found |= {f"{phase} cotangent {n}": a for n, a in gradients.items()}
    for step in range(steps):
        results = session.step(*batch, learning_rate=0.125 / (1 + step))
        found |= {f"step {step} {n}": a for n, a in results.items()}
        for group, arrays in session.read().items():
            flat = {n: {"": a} if isinstance(a, np.ndarray) else a for n, a in arrays.items()}
            found |= {
                f"step {step} {group} {n} {v}": a
                for n, inner in flat.items()
                for v, a in inner.items()
            }
    return found


def worst(found: Arrays, wanted: Arrays) -> float:
    """Return the largest error over all arrays, each relative to the array's largest entry."""
    assert found.keys() == wanted.keys()
    assert found
    errors = []
    for name, array in wanted.items():
        assert found[name].shape == array.shape, name
        scale = max(float(np.max(np.abs(array), initial=0.0)), 1e-30)
        errors.append(float(np.max(np.abs(found[name] - array), initial=0.0)) / scale)
    return float(np.max(errors))


def compare(
    backend: Backend, spec: Spec, free: Mapping[str, int], device: str = "cpu"
) -> tuple[dict[str, str], float]:
    """Return the native layers, and the largest difference between the native path and
    equations."""
    given = draw(spec.program("training"), free)
    native = start(backend, spec, "native", "float64", device)
    found = everything(native, given)
    native.load(given["parameters"], given["statistics"])
    kept = native.read()["parameters"]
    assert kept
    assert all(np.array_equal(kept[n], a) for n, a in given["parameters"].items())
    wanted = everything(start(backend, spec, "equations", "float64", device), given)
    return native.paths(), worst(found, wanted)


def by_oracle(program: Program, given: dict[str, Arrays], free: Mapping[str, int]) -> Arrays:
    """Return the loss, the outputs and the gradients of every parameter, float input and state."""
    floats = [p for p in (*program.inputs, *program.state) if program.types[p.value].bound is None]
    against = [*program.parameters, *floats]
    assert program.loss is not None
    loss = Port("loss", program.loss)
    derivative = differentiate(program, [loss], against, [p.value for p in program.outputs])
    env = {p.value: given[g][p.name] for g in given for p in getattr(program, g)}
    env[derivative.seeds[0].value] = np.float64(1)
    env = oracle.run(derivative.program.nodes, env, {**program.sizes, **free})
    found = {f"output.{p.name}": env[p.value] for p in program.outputs}
    prefix = {p.name: "input." for p in program.inputs} | {p.name: "state." for p in program.state}
    names = [prefix.get(p.name, "") + p.name for p in against]
    values = [env[g.value] for g in derivative.gradients]
    return found | {"loss": env[loss.value]} | dict(zip(names, values, strict=True))


def check_primitive(
    backend: Backend, op: str, inputs: tuple[Any, ...], attributes: dict[str, Any]
) -> None:
    """Assert that a backend's primitive gives the oracle's result in float64."""
    backend.use("cpu", "float64")
    tensors = [
        [backend.tensor(a) for a in x] if isinstance(x, list) else backend.tensor(x) for x in inputs
    ]
    found = backend.numpy(backend.primitives[op](*tensors, **attributes))
    wanted = np.asarray(oracle.TABLE[op](*inputs, **attributes))
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-15, atol=1e-15)
