"""What is wrong only beyond a size, or only of arrays that lie in memory in another way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harness.arrays import Arrays
from harness.checking.checks.context import Context
from harness.checking.checks.extremes import extreme_material
from harness.checking.checks.far_values import least, offset_material
from harness.checking.checks.large_cases import LARGE, large_case, numerous_case
from harness.oracle.case import Case, step_values
from harness.oracle.tolerance import FLOOR, PRECISION, ROUNDOFF, Deviation, prefixed, scales
from harness.oracle.yardstick import Expected
from harness.program.signature import noise_ports
from harness.results.findings import Finding
from harness.runtime.arguments import Arguments

# Of one step, so large that the parameters it starts from are rounded away beside it; exact.
RATE = 2.0**20
# Of the last layer's weights where logits are far out: the exp of a difference of two logits is
# then beyond the dtype.
FACTORS = {"float64": 2.0**14}
FACTOR = 2.0**10


def large_sizes(context: Context) -> Iterator[Finding]:
    """Results and gradients at sizes beyond what buffers hold. In float32 a whole step is made, and
    if the framework makes gradients they are seen by that alone."""
    case, other = (large_case(context.case, context.own, phase) for phase in LARGE)
    finding, remote = Finding("large-sizes"), context.remote
    steps = context.dtype == "float32" and case.training.loss is not None
    if not (steps and remote.automatic):
        _open(context, case)
        expected = with_rows(case.gradients(case.material, "main"), case.batch * case.time)
        finding = context.finding("large-sizes", remote.gradients(case.material), expected)
    if steps:
        finding.deviations += _of_a_step(context, case)
    _open(context, other)
    finding.deviations += prefixed("inference, ", _tested(context, other, other.material, "main"))
    factor = FACTORS.get(context.dtype, FACTOR)
    far_out = {"far logits": extreme_material(other, factor)}
    if (moved := offset_material(other)) is not None:
        far_out["far from zero"] = moved
    for word, material in far_out.items():
        remote.load(material)
        tested = _tested(context, other, material, (word, factor), least(other))
        finding.deviations += prefixed(f"{word}, ", tested)
    finding.sizes = f"{case.sizes_text}; inference at {other.sizes_text}"
    yield finding


def _tested(
    context: Context, case: Case, material: Arguments, key: Any, floor: float = 0.0
) -> list[Deviation]:
    """Compare an inference and its loss, without training; the noise is at least ``floor``.
    Of numbers far out, a kernel for large sizes may overflow, or cancel, where that for
    small ones does not."""
    targets = None if case.inference.loss is None else material.targets
    expected = case.forward("inference", material, key, targets).at_least(floor)
    found = context.remote.forward("inference", material.inputs, material.state, targets)
    return context.finding("large-sizes", found, expected).deviations


def _open(context: Context, case: Case) -> None:
    """A session of a case, with its parameters."""
    programs = case.training, case.inference
    context.remote.open(*programs, None, context.path, context.dtype, context.device)
    context.remote.load(case.material)


def _of_a_step(context: Context, case: Case) -> list[Deviation]:
    """Those of one step, and of the results of a training that is no inference."""
    remote, expected = (
        context.remote,
        with_rows(case.gradients(case.material, "main"), case.batch * case.time),
    )
    deviations: list[Deviation] = []
    if remote.automatic and _has_phases(case):
        _open(context, case)
        found = remote.forward("training", case.material.inputs, case.material.state)
        trained = expected.only("output.", "state.", "statistics.")
        deviations += context.finding("large-sizes", found, trained).deviations
    stepped = _stepped(replace(context, case=case), expected.values)
    others = context.finding("large-sizes", stepped, _rounded(case, expected, stepped))
    return deviations + prefixed("whole step, ", others.deviations)


def large_counts(context: Context) -> Iterator[Finding]:
    """Results and gradients where more is of what the spec has few of, and all else is small. Opens
    a new session."""
    case = numerous_case(context.case, context.own)
    if case is None:
        return
    _open(context, case)
    expected = with_rows(case.gradients(case.material, "main"), case.batch * case.time)
    finding = context.finding("large-counts", context.remote.gradients(case.material), expected)
    finding.sizes = case.sizes_text
    yield finding


def _has_phases(case: Case) -> bool:
    """Whether the model does something else in an inference than in training."""
    return bool(case.training.statistics or noise_ports(case.training))


def with_rows(expected: Expected, rows: int) -> Expected:
    """Where a loss depends on no parameter, as with a single class, gradients are what rounding
    leaves of a row's probability, in each of all rows, and maybe to one side in all of them."""
    if any(gradient.any() for gradient in expected.only("gradient.").values.values()):
        return expected
    return expected.at_least(ROUNDOFF * rows, "gradient.")


def _rounded(case: Case, expected: Expected, stepped: Mapping[str, Any]) -> Expected:
    """Of what a step shows, with the rounding of the parameters that it was read from."""
    values = {n: a for n, a in expected.values.items() if n in stepped}
    scale = scales(values)
    read = {
        f"gradient.{n}": float(np.abs(a).max()) * FLOOR / RATE / scale[f"gradient.{n}"]
        for n, a in case.material.parameters.items()
        if f"gradient.{n}" in values
    }

    def measured(base: str) -> dict[str, float]:
        noise = expected.measured(base)
        return {n: noise[n] + read.get(n, 0.0) * PRECISION[base] for n in values}

    return Expected(values, measured)


def _stepped(context: Context, expected: Arrays) -> dict[str, Any]:
    """The loss of one whole step of gradient descent, and the gradients that it has followed."""
    material = context.case.material
    batches = [{"inputs": material.inputs, "targets": material.targets}]
    # Over another batch, as memory is written again.
    zeros = [
        {k: {n: np.zeros_like(a) for n, a in given.items()} for k, given in batches[0].items()}
    ]
    context.prepare("train", zeros, context.case.spec.rule("sgd"), RATE)
    context.remote.call("feed", batches=batches)
    (results,) = context.remote.call("values", first=0, count=1)
    step = {"results": results, **context.remote.call("parameters")}
    values = step_values(1, step, material)
    found = {"loss": values["step 1: loss"]}
    for name in material.parameters:
        if f"gradient.{name}" in expected:
            moved = values[f"step 1: {name} moved"]
            found[f"gradient.{name}"] = moved * moved.dtype.type(-1 / RATE)
    return found


def strides(context: Context) -> Iterator[Finding]:
    """Arrays with gaps and axes in reverse, in inference and up to the gradients of a training, and
    tensors that are views, give what others do."""
    case = context.case
    material = case.material
    found = context.remote.call(
        "strided",
        parameters=material.parameters,
        statistics=material.statistics,
        inputs=material.inputs,
        state=material.state,
        targets=material.targets,
    )
    forward = case.forward("inference", material, "main")
    every = (forward, forward, case.gradients(material, "main"))
    finding = Finding("strides")
    for results, expected in zip(found, every, strict=True):
        finding.deviations += context.finding("strides", results, expected).deviations
    yield finding
