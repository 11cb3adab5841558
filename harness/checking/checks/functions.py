"""Checks of single functions and primitives at many points, entry by entry, up to the ends of a
dtype's range.

Random weights give pre-activations of at most about 16, so a model does not show errors of its
functions at larger arguments. A model also hides an error in a single one of a thousand entries,
because that error is smaller than the noise of the whole tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from harness.arrays import Array, ArrayDict, Arrays
from harness.checking.checks.context import (
    Context,
    Results,
    load_probe,
    make_probe_case,
    run_once_per_worker,
)
from harness.oracle import oracle
from harness.oracle.case import Case
from harness.oracle.draw import draw, single
from harness.oracle.tolerance import Deviation, compare, prefixed, worst_point
from harness.program.ir import Node, Program, needed_nodes, walk_nodes
from harness.program.primitives import OFFERED
from harness.program.signature import crossing_ports
from harness.results.findings import SHOWN, Finding
from harness.runtime.answers import Arguments, Misfit, tensor
from harness.runtime.precision import narrow
from harness.worker.remote import offers_of

# The inputs of the function probes, and the allowed error of each result.

# Points near which implementations change: where exp overflows in float32 and float64, where tanh
# rounds to 1, 128, 1,000, the largest 16-bit and 32-bit integers, and the largest float32.
ENDS = [22, 25, 30, 37, 38, 40, 50, 60, 70, 80, 87, 88, 89, 90, 100, 103, 104, 110, 127, 128]
FAR = [200, 300, 500, 700, 709, 710, 744, 746, 800, 1000]
FURTHEST = [4e4, 1e6, 3e9, 1e12, 1e20, 1e30, 3e38]
# Prefixes of the layers with random parameters. In all other layers weights are 1 and biases 0.
RANDOM_LAYERS = ("table.", "wide.", "narrow.", "read.")
# Rows have CLASSES entries; a row with NaN or infinity has it at index SPECIAL_INDEX.
CLASSES, SPECIAL_INDEX = 300, 200


@dataclass(frozen=True)
class Promise:
    """The error that a correct function may have at each entry of its result.

    It is ``units`` times the roundoff of the dtype, relative to the size of the entry. If the size
    is below ``least``, it is relative to ``least``. The numbers are in
    ``specs/probes/promises.yaml``.
    """

    units: float
    least: float = 0.0


@cache
def promises(probe: str) -> Mapping[str, Promise]:
    """Return a dictionary from the name of each output of a probe (a small test model) to its
    allowed error."""
    text = files("harness.specs.probes").joinpath("promises.yaml").read_text(encoding="utf-8")
    return {
        name: Promise(row["units"], row.get("least", 0.0))
        for row in yaml.safe_load(text)[probe]
        for name in row["outputs"]
    }


# Outputs computed from denormal numbers. A backend may flush denormals to 0 unless it promises not
# to.
OF_DENORMALS = frozenset({"log_of_tiny", "sqrt_of_tiny"})
# Outputs of layers and matrix products. They are not compared in bfloat16 and float16, because
# layers and matrix products round their inputs to these dtypes.
OF_LAYERS = re.compile(r"joined|joined_128|steps_16|rows|rows_in_order|.*_of_dense|products_.*")


def points() -> Array:
    """Return test arguments for functions: numbers of both signs, from the smallest to the largest
    float32, and infinities and NaN."""
    tiny = [0.0, 2.0**-149, 2.0**-130, 2.0**-126]
    near = [np.logspace(-30, -1, 30), np.linspace(0.0513, 20.0133, 397)]
    positive_points = single(np.concatenate([tiny, *near, ENDS, FAR, FURTHEST]))
    return np.concatenate([positive_points, -positive_points, [np.inf, -np.inf, np.nan]])


def function_material(program: Program) -> Arguments:
    """Return the parameters and inputs of the test model ``probe/functions``, whose outputs are
    single functions."""
    x = points()
    count, random = len(x), np.random.default_rng(13)
    drawn = draw(program, count, 1, 13)
    a, b = random.choice([-1, 1], (2, count)) * np.exp2(random.uniform(-40, 40, (2, count)))
    # Divisions by signed zeros and infinities, and results below the smallest normal number.
    a[:8] = [1, -1, 1, 0.0, np.inf, -np.inf, 1.5 * 2.0**-126, 2.0**-100]
    b[:8] = [0.0, 0.0, -0.0, 0.0, np.inf, 3, 2.0**-126, 2.0**-40]
    columns = {
        "x": x,
        "exponents": np.concatenate([x[abs(x) > 87], np.linspace(-87, 87, 401)]),
        "positive": _positive_points(),
        "base": random.uniform(0.5, 1, count) ** 0.1,
        "power": random.integers(1, 200, count),
        "a": a,
        "b": b,
    }
    # Indices: every row, and the last row more than 64 times.
    indices = np.arange(count) % CLASSES
    indices[:100] = CLASSES - 1
    inputs = _as_columns(columns, count) | {
        "logits": single(_logits(random)),
        "tall_rows": single(random.normal(size=(130, CLASSES))),
        "lost_rows": single(_nan_rows(random)),
        "indices": indices,
        "wanted": np.array([299, 256, 255, 0, 128, 64]),
        # Group 0 of rows has NaN, groups 1 and 2 have infinities, and all other groups are finite.
        "parts": np.array([0, 1, 0, 2, *([0, 3, 0, 4, 0, 5] * 21)]),
        "square": single(random.normal(size=(128, 128))),
        "long": single(random.normal(size=(6, 1024))),
        "frames": single(random.normal(size=(6, 16, 5))),
        "in_order": np.sort(random.integers(0, CLASSES, 128)),
    }
    return replace(drawn, parameters=_unit_parameters(drawn.parameters), inputs=inputs)


def further_material(program: Program) -> Arguments:
    """Return the parameters and inputs of the test model ``probe/further``, whose outputs need
    optional primitives."""
    x, random = points(), np.random.default_rng(17)
    count = len(x)
    drawn = draw(program, count, 1, 17)
    columns = {
        "x": x,
        # Leave out the largest and smallest numbers: frameworks multiply before they divide, and
        # may flush denormals to 0.
        "bounded": x[(x == 0) | np.isnan(x) | (abs(x) >= 2.0**-126) & (abs(x) <= 1e30)],
        "jumps": _rounding_points(),
        "signed": np.concatenate([[0.0, -1.0, 1.0, -2.0, -3.5], random.normal(size=count) * 4]),
        "times": np.arange(count) % 9,
        "positive": _positive_points(),
        "tiny": np.exp2(np.arange(-149.0, -126.0)) * [[1], [1.5]],
    }
    inputs = _as_columns(columns, count) | {
        "logits": single(_logits(random)),
        "addends": single(_addends(random)),
        "keys": single(_keys(random)),
        "flat": single(random.normal(size=(6, CLASSES))),
        # Values far below 0: the padding of a maximum must be lower than these.
        "image": single(random.normal(size=(6, 9, 11, 70)) - 3e4),
    }
    return replace(drawn, parameters=_unit_parameters(drawn.parameters), inputs=inputs)


def _as_columns(columns: Mapping[str, npt.ArrayLike], count: int) -> ArrayDict:
    return {name: single(np.resize(values, count)[:, None]) for name, values in columns.items()}


def _positive_points() -> Array:
    """Return arguments for logarithms and roots: numbers from the whole range of float32, and many
    numbers near 1."""
    ranges = [0, np.inf, 1], np.logspace(-37, 38.4, 300), np.linspace(0.5, 2, 300)
    return np.concatenate(ranges)


def _rounding_points() -> Array:
    """Return arguments for functions such as floor: integers, the floats next to them, halves, and
    floats so large that all of them are integers."""
    whole = np.concatenate([np.arange(-60.0, 61.0), [3e4, 4e4, 2.0**23 - 1, 3e9, 3e38]])
    next_lower = np.nextafter(whole[whole != 0].astype(np.float32), np.float32(-np.inf))
    positive_points = np.concatenate([whole, next_lower, whole[:121] + 0.5])
    return np.concatenate([[np.inf, -np.inf, np.nan, -0.0], positive_points, -positive_points])


def _addends(random: np.random.Generator) -> Array:
    """Return rows for sums: random numbers, integers, and rows with one NaN or one infinity. The
    entries before this NaN or infinity have a finite sum."""
    rows = random.normal(size=(6, CLASSES))
    rows[1] = random.integers(-9, 10, CLASSES)
    rows[2, SPECIAL_INDEX] = np.nan
    rows[3, SPECIAL_INDEX] = np.inf
    return rows


def _nan_rows(random: np.random.Generator) -> Array:
    """Return rows of random numbers. Every second row has a NaN, and two other rows have an
    infinity. The array has more numbers than XLA processes as one block on a CPU."""
    rows = random.normal(size=(130, CLASSES))
    rows[::2, SPECIAL_INDEX] = np.nan
    rows[1, SPECIAL_INDEX], rows[3, SPECIAL_INDEX] = np.inf, -np.inf
    return np.asarray(rows)


def _keys(random: np.random.Generator) -> Array:
    """Return rows to be sorted: distinct numbers, ties, equal numbers, signed zeros, infinities and
    NaN, and nearly equal numbers."""
    rows = random.normal(size=(6, CLASSES))
    rows[1] = random.integers(0, 7, CLASSES)
    rows[2] = 1.5
    rows[3] = random.choice([0.0, -0.0], CLASSES)
    rows[4, ::7], rows[4, ::11], rows[4, ::13] = np.inf, -np.inf, np.nan
    rows[5] = 1 + random.permutation(CLASSES) * 2.0**-23
    return rows


def _logits(random: np.random.Generator) -> Array:
    """Return rows of logits: close together, far apart, masked with -inf, all equal, with only one
    class that is not -inf, and far from 0."""
    logits = random.normal(size=(6, CLASSES)) * np.array([[5], [300], [1], [0], [1], [1]])
    logits[2, ::3] = -np.inf
    logits[4, : CLASSES - 1] = -np.inf
    logits[5] += 1e4
    return np.asarray(logits)


def _unit_parameters(drawn: Mapping[str, Array]) -> ArrayDict:
    """Return parameters with which each layer of one unit only applies its activation: weights are
    1 and biases 0. Layers in :data:`RANDOM_LAYERS` keep the random parameters ``drawn``."""
    unit = {n: np.full_like(a, n.endswith(".W")) for n, a in drawn.items()}
    return unit | {n: a for n, a in drawn.items() if n.startswith(RANDOM_LAYERS)}


Run = Callable[[Context, Arrays], Results]
# Name of a probe -> the function that returns its arguments.
MATERIAL = {"functions": function_material, "further": further_material}


def functions(context: Context) -> Iterator[Finding]:
    """Compare each function (e.g. ``tanh``) at about a thousand points, once in a session and once
    in a compiled plan. If the checked model uses an optional primitive, functions that need
    optional primitives are tested too."""
    finding = Finding("functions")
    for name in MATERIAL if _optional_primitives(context.case.training.nodes) else ("functions",):
        finding.deviations += run_once_per_worker(
            context, name, partial(_compare_probe, context, name)
        )
    yield finding


def _compare_probe(context: Context, name: str) -> list[Deviation]:
    """Open a session of the probe ``name`` (a small test model) and compare its outputs. Outputs
    that need a primitive which the backend lacks are left out."""
    remote = context.remote
    own = context.open_case(_make_case(name, offers_of(remote.worker.hello or {}, context.dtype)))
    return [
        *_compare_outputs(own, name, _run_in_session),
        *prefixed("planned ", _compare_outputs(own, name, _run_as_plan)),
    ]


def _run_in_session(context: Context, inputs: Arrays) -> Results:
    return context.remote.forward("inference", inputs, {})


def _run_as_plan(context: Context, inputs: Arrays) -> Results:
    (results,), _ = context.run_pipeline("forward", [{"inputs": inputs, "targets": {}}], None, 0.0)
    return results


def _compare_outputs(context: Context, name: str, run: Run) -> list[Deviation]:
    """Return the deviation of each output of the probe ``name`` (a small test model). ``run``
    computes the outputs on the backend.

    The deviations of the first few wrong outputs also contain the wrong function call as text.
    """
    exact, inputs = _compute_exact(context.case), context.case.material.inputs
    deviations = _compare_with_exact(context, name, run(context, inputs), exact)
    wrong = [d for d in deviations if d.point is not None][:SHOWN]
    with_calls = {d.name: _add_call(context, name, run, d, exact[d.name]) for d in wrong}
    return [with_calls.get(d.name, d) for d in deviations]


def _compare_with_exact(
    context: Context, name: str, results: Results, exact: Arrays
) -> list[Deviation]:
    denormals = context.remote.denormals
    allowed, narrows_products = promises(name), narrow(context.dtype)
    return [
        _measure_error(n, results.get(f"output.{n}"), a, allowed[n], context.float_dtype, denormals)
        for n, a in exact.items()
        if not (narrows_products and OF_LAYERS.fullmatch(n))
        and (denormals or n not in OF_DENORMALS)
    ]


def _add_call(
    context: Context, name: str, run: Run, deviation: Deviation, exact: Array
) -> Deviation:
    """Return the deviation with the wrong function call as text, e.g. ``sqrt(inf) gave``; the
    message then adds the numbers. ``exact`` has the right results.

    If each row of the batch is one call, the wrong row runs again, alone. The row may then be
    right, because kernels use different code for whole vectors and for the remainder.
    """
    point, case = deviation.point, context.case
    assert point is not None
    equations = dict(line.split(" = ", 1) for line in load_probe(name).model.equations.splitlines())
    call = equations[deviation.name]
    if exact.shape != (case.batch, 1):
        text = f"{call} at {list(point.place)} gave"
        return replace(deviation, point=replace(point, words=text))
    row = slice(point.place[0], point.place[0] + 1)
    inputs = {n: a[row] if len(a) == case.batch else a for n, a in case.material.inputs.items()}
    dtype = np.dtype(context.float_dtype).type
    for name_of_input in set(re.findall(r"\w+", call)) & inputs.keys():
        call = re.sub(rf"\b{name_of_input}\b", str(dtype(inputs[name_of_input].item())), call)
    (alone,) = _compare_with_exact(
        context, name, run(context, inputs), {deviation.name: exact[row]}
    )
    note = "right in a tensor of 1 entry" if alone.agrees else "also in a tensor of 1 entry"
    return replace(deviation, point=replace(point, words=f"{call} gave", note=note))


def _measure_error(
    name: str, result: Any, exact: Array, promise: Promise, dtype: str, denormals: bool
) -> Deviation:
    """Return the largest error of any entry of one output, relative to the size of the entry,
    together with the allowed error. With ``denormals``, the backend promises to keep denormal
    numbers."""
    limits = np.finfo(dtype)
    roundoff = float(limits.eps) / 2
    array = tensor(result)
    if isinstance(array, Misfit) or array.shape != exact.shape or array.dtype != dtype:
        # The result is not an array of the right shape and dtype. The deviation only says this.
        return compare({name: result}, {name: np.zeros(exact.shape)}, {}, dtype)[0]
    with np.errstate(all="ignore"):
        expected = np.where(abs(exact) > limits.max, np.copysign(np.inf, exact), exact)
        is_equal = (array == expected) | (np.isnan(array) & np.isnan(expected))
        difference = abs(array - expected)
        # Denormal numbers have fewer digits, or are flushed to 0.
        smallest = 2 * limits.smallest_subnormal if denormals else limits.tiny
        error = difference / np.maximum(abs(expected), max(promise.least, float(limits.tiny)))
        error = np.where(
            is_equal | (difference <= smallest), 0, np.nan_to_num(error, nan=np.inf, posinf=np.inf)
        )
    largest, allowed = float(np.max(error)), promise.units * roundoff
    point = worst_point(array, expected, error, allowed) if largest > allowed else None
    return Deviation(name, largest, roundoff, allowed, point=point)


@cache
def _make_case(name: str, offers: frozenset[str]) -> Case:
    """Return the case of a probe (a small test model). ``offers`` has the optional primitives of
    the backend; outputs that need other optional primitives are left out."""
    case = make_probe_case(name, len(points()), MATERIAL[name])
    case.training, case.inference = (
        _drop_unsupported(p, offers) for p in (case.training, case.inference)
    )
    return case


def _drop_unsupported(program: Program, offers: frozenset[str]) -> Program:
    """Return a program without its loss, and without outputs that need an optional primitive which
    is not in ``offers``."""
    nodes = program.nodes
    outputs = tuple(
        port
        for port in program.outputs
        if _optional_primitives(needed_nodes(nodes, [port.value])) <= offers
    )
    nodes_kept = needed_nodes(nodes, [port.value for port in outputs])
    return replace(program, nodes=nodes_kept, outputs=outputs, loss=None)


def _optional_primitives(nodes: tuple[Node, ...]) -> set[str]:
    """Return the optional primitives that the nodes use."""
    return {node.op for node in walk_nodes(nodes) if node.op in OFFERED}


@cache
def _compute_exact(case: Case) -> Mapping[str, Array]:
    groups = {"": case.material.parameters, "input.": case.material.inputs}
    values_by_number = {}
    for prefix, port in crossing_ports(case.inference):
        array = groups[prefix][port.name]
        values_by_number[port.value] = (
            array.astype(np.longdouble) if array.dtype.kind == "f" else array
        )
    sizes = {**case.inference.sizes, "batch": case.batch}
    values = oracle.run(case.inference.nodes, values_by_number, sizes, "longdouble")
    return {port.name: values[port.value] for port in case.inference.outputs}
