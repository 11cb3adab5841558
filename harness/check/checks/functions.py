"""Functions and primitives by value, entry by entry, where approximations end.

A network hides what its functions do far out: random weights make pre-activations of up to some
16, and what is wrong in one entry of a thousand is less than the noise of a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.check.checks.context import Context
from harness.check.checks.probes import once, probe_case
from harness.check.findings import Finding
from harness.oracle import oracle
from harness.oracle.case import Case
from harness.oracle.draw import draw, single
from harness.oracle.tolerance import Deviation, compare
from harness.program.ir import Program
from harness.program.signature import crossing_ports
from harness.runtime.arguments import Arguments
from harness.runtime.precision import narrow
from harness.runtime.tensors import Misfit, tensor

# Ends of exp in float32 and float64, and of tanh; indices of a byte; a thousand.
ENDS = [22, 25, 30, 37, 38, 40, 50, 60, 70, 80, 87, 88, 89, 90, 100, 103, 104, 110, 127, 128]
FAR = [200, 300, 500, 700, 709, 710, 744, 746, 800, 1000]


@dataclass(frozen=True)
class Promise:
    """How far off every entry of a result may be: ``units`` of roundoff, which is half a unit in
    the last place of 1, times the entry or, where that is smaller, times ``least``.

    Measured on all backends that ship and both dtypes: tanh 7.0, log 2.7, exp 2.4, a sigmoid 2.3,
    log_softmax 1.8, a power 1.7, what IEEE 754 rounds correctly 1.0, sums of 130 to 300 terms 64,
    the others less.
    """

    units: float
    least: float = 0.0


EXACT, ROUNDED, NEAR, BESIDE_ONE = Promise(0), Promise(2), Promise(8), Promise(8, 1.0)
# The promises of the outputs of the probe. A sigmoid is a half and half a tanh, so that what it has
# are digits beside 1 and none of its own tail; softmax and hard sigmoids are sums beside 1, too.
PROMISES: Mapping[str, Promise] = {
    **dict.fromkeys(("tanh_of_x", "tanh_of_dense"), Promise(12)),
    **dict.fromkeys(("exp_of_exponents", "log_of_positive", "powers"), NEAR),
    **dict.fromkeys(("total", "difference", "product", "quotient", "sqrt_of_positive"), ROUNDED),
    **dict.fromkeys(("sigmoid_of_x", "fifth_of_x", "sixth_of_x"), BESIDE_ONE),
    **dict.fromkeys(("sigmoid_of_dense", "fifth_of_dense", "sixth_of_dense"), BESIDE_ONE),
    **dict.fromkeys(("probabilities", "log_probabilities"), BESIDE_ONE),
    **dict.fromkeys(("relu_of_x", "relu_of_dense", "larger", "smaller", "highest"), EXACT),
    **dict.fromkeys(("picked", "rows", "hot"), EXACT),
    **dict.fromkeys(("summed", "joined"), Promise(512, 1.0)),
}
# Those of layers, which in bfloat16 and float16 round what they are given.
OF_LAYERS = frozenset({"joined", "rows", *(n for n in PROMISES if n.endswith("_of_dense"))})


def functions(context: Context) -> Iterator[Finding]:
    """Every function at a thousand points, in a session and as a planned step."""
    finding = Finding("functions")
    finding.deviations = list(once(context, "functions", lambda: _functions(context)))
    yield finding


def _functions(context: Context) -> list[Deviation]:
    """The deviations of all outputs. Opens a session of its own."""
    case, remote = _case(), context.remote
    remote.open(case.training, case.inference, None, context.path, context.dtype, context.device)
    remote.load(case.material)
    walked = remote.forward("inference", case.material.inputs, {})
    batch = {"inputs": case.material.inputs, "targets": {}}
    (planned,), _ = replace(context, case=case).timed("forward", [batch], None, 0.0)
    kept = remote.denormals
    return [
        *_compared(walked, context, kept, ""),
        *_compared(planned, context, kept, "planned "),
    ]


def _compared(
    found: Mapping[str, Any], context: Context, denormals: bool, way: str
) -> list[Deviation]:
    left_out = OF_LAYERS if narrow(context.dtype) else ()
    outputs = {n: (found.get(f"output.{n}"), a) for n, a in _exact().items() if n not in left_out}
    return [
        _deviation(f"{way}{name}", *pair, PROMISES[name], context.kept, denormals)
        for name, pair in outputs.items()
    ]


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
    worst = float(np.max(error))
    return Deviation(name, worst, unit, promise.units * unit)


@cache
def _case() -> Case:
    return probe_case("functions", len(points()), material)


@cache
def _exact() -> Mapping[str, Array]:
    """The outputs of the probe, in the longest floats that numpy has here."""
    case = _case()
    groups = {"": case.material.parameters, "input.": case.material.inputs}
    env = {}
    for prefix, port in crossing_ports(case.inference):
        array = groups[prefix][port.name]
        env[port.value] = array.astype(np.longdouble) if array.dtype.kind == "f" else array
    sizes = {**case.inference.sizes, "batch": case.batch}
    values = oracle.run(case.inference.nodes, env, sizes, "longdouble")
    return {port.name: values[port.value] for port in case.inference.outputs}


def points() -> Array:
    """Numbers of either sign from the smallest to a thousand, infinities and NaN."""
    tiny = [0.0, 2.0**-149, 2.0**-130, 2.0**-126]
    near = [np.logspace(-30, -1, 30), np.linspace(0.0513, 20.0133, 397)]
    found = single(np.concatenate([tiny, *near, ENDS, FAR]))
    return np.concatenate([found, -found, [np.inf, -np.inf, np.nan]])


def material(program: Program) -> Arguments:
    """The arguments of ``probe/functions``."""
    x = points()
    count, random = len(x), np.random.default_rng(13)
    given = draw(program, count, 1, 13)
    a, b = random.choice([-1, 1], (2, count)) * np.exp2(random.uniform(-40, 40, (2, count)))
    # Divisions by zeros of either sign, infinities, and results below the smallest normal number.
    a[:8] = [1, -1, 1, 0.0, np.inf, -np.inf, 1.5 * 2.0**-126, 2.0**-100]
    b[:8] = [0.0, 0.0, -0.0, 0.0, np.inf, 3, 2.0**-126, 2.0**-40]
    columns = {
        "x": x,
        "exponents": np.concatenate([x[abs(x) > 87], np.linspace(-87, 87, 401)]),
        "positive": np.concatenate(
            [[0, np.inf, 1], np.logspace(-37, 37, 300), np.linspace(0.5, 2, 300)]
        ),
        "base": random.uniform(0.5, 1, count) ** 0.1,
        "power": random.integers(1, 200, count),
        "a": a,
        "b": b,
    }
    # More than 64 times the last row, and every row.
    indices = np.arange(count) % 300
    indices[:100] = 299
    inputs = {name: single(np.resize(values, count)[:, None]) for name, values in columns.items()}
    inputs |= {
        "logits": single(_logits(random)),
        "tall_rows": single(random.normal(size=(130, 300))),
        "indices": indices,
        "wanted": np.array([299, 256, 255, 0, 128, 64]),
    }
    return replace(given, parameters=_parameters(given.parameters), inputs=inputs)


def _logits(random: np.random.Generator) -> Array:
    """Rows that spread, that spread far, that are masked, equal, of one class, and far from 0."""
    logits = random.normal(size=(6, 300)) * np.array([[5], [300], [1], [0], [1], [1]])
    logits[2, ::3] = -np.inf
    logits[4, :299] = -np.inf
    logits[5] += 1e4
    return np.asarray(logits)


def _parameters(drawn: Mapping[str, Array]) -> ArrayDict:
    """Layers of one unit are their activation and nothing else."""
    unit = {n: np.full_like(a, n.endswith(".W")) for n, a in drawn.items()}
    return unit | {n: a for n, a in drawn.items() if n.startswith(("table.", "wide."))}
