"""Functions and primitives by value, entry by entry, where approximations end.

A network hides what its functions do far out: random weights make pre-activations of up to some
16, and what is wrong in one entry of a thousand is less than the noise of a tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from harness.arrays import Array, Arrays
from harness.checking.checks.context import Context
from harness.checking.checks.probes import once, probe, probe_case
from harness.checking.checks.promises import (
    OF_DENORMALS,
    OF_LAYERS,
    PROMISES,
    Promise,
    further,
    material,
    points,
)
from harness.oracle import oracle
from harness.oracle.case import Case
from harness.oracle.tolerance import Deviation, compare, prefixed, worst_point
from harness.program.ir import Node, Program, needed_nodes, walk_nodes
from harness.program.primitives import OFFERED
from harness.program.signature import crossing_ports
from harness.results.findings import SHOWN, Finding
from harness.runtime.precision import narrow
from harness.runtime.tensors import Misfit, tensor
from harness.worker.remote import offers_of

Found = Mapping[str, Any]
Run = Callable[[Context, Arrays], Found]
# The probes, and the makers of their arguments.
MATERIAL = {"functions": material, "further": further}


def functions(context: Context) -> Iterator[Finding]:
    """Every function at a thousand points, in a session and as a planned step; those that few
    models have, where the model has an offered primitive."""
    finding = Finding("functions")
    for name in MATERIAL if _offers(context.case.training.nodes) else ("functions",):
        finding.deviations += once(context, name, partial(_functions, context, name))
    yield finding


def _functions(context: Context, name: str) -> list[Deviation]:
    """The deviations of the outputs of a probe that the backend has the primitives of. Opens a
    session of its own."""
    remote = context.remote
    case = _case(name, offers_of(remote.worker.hello or {}, context.dtype))
    remote.open(case.training, case.inference, None, context.path, context.dtype, context.device)
    remote.load(case.material)
    own = replace(context, case=case)
    return [
        *_deviations(own, name, _walked),
        *prefixed("planned ", _deviations(own, name, _planned)),
    ]


def _walked(context: Context, inputs: Arrays) -> Found:
    return context.remote.forward("inference", inputs, {})


def _planned(context: Context, inputs: Arrays) -> Found:
    (found,), _ = context.timed("forward", [{"inputs": inputs, "targets": {}}], None, 0.0)
    return found


def _deviations(context: Context, name: str, run: Run) -> list[Deviation]:
    """The deviations of a probe's outputs; the first that are off say of which call."""
    exact, inputs = _exact(context.case), context.case.material.inputs
    found = _compared(context, run(context, inputs), exact)
    wrong = [d for d in found if d.point is not None][:SHOWN]
    told = {d.name: _with_call(context, name, run, d, exact[d.name]) for d in wrong}
    return [told.get(d.name, d) for d in found]


def _compared(context: Context, found: Found, exact: Arrays) -> list[Deviation]:
    denormals = context.remote.denormals
    left_out = {*(OF_LAYERS if narrow(context.dtype) else ()), *(() if denormals else OF_DENORMALS)}
    outputs = {n: (found.get(f"output.{n}"), a) for n, a in exact.items() if n not in left_out}
    return [
        _deviation(name, *pair, PROMISES[name], context.kept, denormals)
        for name, pair in outputs.items()
    ]


def _with_call(
    context: Context, name: str, run: Run, deviation: Deviation, exact: Array
) -> Deviation:
    """A deviation whose point says what was called with which numbers. Where each row is a call,
    the row that is off is computed once more alone: kernels have one way for whole vectors of
    entries and another for what is left of them."""
    point, case = deviation.point, context.case
    assert point is not None
    equations = dict(line.split(" = ", 1) for line in probe(name).model.equations.splitlines())
    call = equations[deviation.name]
    if exact.shape != (case.batch, 1):
        words = f"{call} at {list(point.place)} gave"
        return replace(deviation, point=replace(point, words=words))
    row = slice(point.place[0], point.place[0] + 1)
    inputs = {n: a[row] if len(a) == case.batch else a for n, a in case.material.inputs.items()}
    kept = np.dtype(context.kept).type
    for given in set(re.findall(r"\w+", call)) & inputs.keys():
        call = re.sub(rf"\b{given}\b", str(kept(inputs[given].item())), call)
    (alone,) = _compared(context, run(context, inputs), {deviation.name: exact[row]})
    note = "right in a tensor of 1 entry" if alone.agrees else "also in a tensor of 1 entry"
    return replace(deviation, point=replace(point, words=f"{call} gave", note=note))


def _deviation(
    name: str, found: Any, exact: Array, promise: Promise, dtype: str, denormals: bool
) -> Deviation:
    """The furthest entry of one output, against what it promises."""
    limits = np.finfo(dtype)
    unit = float(limits.eps) / 2
    array = tensor(found)
    if isinstance(array, Misfit) or array.shape != exact.shape or array.dtype != dtype:
        # What is compared here is its form: it is not an array of the right one.
        return compare({name: found}, {name: np.zeros(exact.shape)}, {}, dtype)[0]
    with np.errstate(all="ignore"):
        right = np.where(abs(exact) > limits.max, np.copysign(np.inf, exact), exact)
        same = (array == right) | (np.isnan(array) & np.isnan(right))
        gap = abs(array - right)
        # What is below the smallest normal number has fewer digits, or none.
        lost = 2 * limits.smallest_subnormal if denormals else limits.tiny
        error = gap / np.maximum(abs(right), max(promise.least, float(limits.tiny)))
        error = np.where(same | (gap <= lost), 0, np.nan_to_num(error, nan=np.inf, posinf=np.inf))
    worst, allowed = float(np.max(error)), promise.units * unit
    point = worst_point(array, right, error, allowed) if worst > allowed else None
    return Deviation(name, worst, unit, allowed, point=point)


@cache
def _case(name: str, offers: frozenset[str]) -> Case:
    """A probe, with those of its outputs that need no primitives beyond the ``offers``."""
    case = probe_case(name, len(points()), MATERIAL[name])
    case.training, case.inference = (_fitting(p, offers) for p in (case.training, case.inference))
    return case


def _fitting(program: Program, offers: frozenset[str]) -> Program:
    """A program without the outputs that need more than the ``offers``, and without a loss."""
    nodes = program.nodes
    outputs = tuple(
        port for port in program.outputs if _offers(needed_nodes(nodes, [port.value])) <= offers
    )
    kept = needed_nodes(nodes, [port.value for port in outputs])
    return replace(program, nodes=kept, outputs=outputs, loss=None)


def _offers(nodes: tuple[Node, ...]) -> set[str]:
    """The primitives among some nodes that a backend need not have."""
    return {node.op for node in walk_nodes(nodes) if node.op in OFFERED}


@cache
def _exact(case: Case) -> Mapping[str, Array]:
    """The outputs of a probe, in the longest floats that numpy has here."""
    groups = {"": case.material.parameters, "input.": case.material.inputs}
    env = {}
    for prefix, port in crossing_ports(case.inference):
        array = groups[prefix][port.name]
        env[port.value] = array.astype(np.longdouble) if array.dtype.kind == "f" else array
    sizes = {**case.inference.sizes, "batch": case.batch}
    values = oracle.run(case.inference.nodes, env, sizes, "longdouble")
    return {port.name: values[port.value] for port in case.inference.outputs}
