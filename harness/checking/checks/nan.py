"""Checks that NaN spreads to outputs, losses and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harness.checking.checks.context import Context, select_prefixes
from harness.program.signature import ONE_BY_ONE, by_kind, float_inputs
from harness.results.findings import Finding


def nan(context: Context) -> Iterator[Finding]:
    """Fill one parameter with NaN, and check that every output and loss that depends on this
    parameter is NaN.

    The check repeats this for each parameter. If the model has many parameters, the check tests
    only the parameters of the first and the last repeated block.

    If a gradient of the oracle is all NaN, at least one gradient of the backend must contain NaN.
    The other gradients may be finite: the slope of relu at NaN is 0 or 1 by definition, and unused
    embedding rows may have a gradient of 0.
    """
    case = context.case
    if not case.training.parameters:
        return
    finding = Finding("nan")
    names = [port.name for port in case.training.parameters]
    if len(names) > ONE_BY_ONE:
        ends = {name for group in by_kind(names) for name in (group[0], group[-1])}
        names = [name for name in names if name in ends]
    for name in names:
        _check_nan_spreads(context, finding, "parameters", name)
    yield finding


def nan_inputs(context: Context) -> Iterator[Finding]:
    """Fill the first parameter, each float input and each state with NaN, one at a time. Check that
    the NaN reaches outputs, losses and gradients as in the oracle."""
    program = context.case.training
    groups = {
        "parameters": program.parameters[:1],
        "inputs": float_inputs(program),
        "state": program.state,
    }
    finding = Finding("nan-inputs")
    for group, ports in groups.items():
        for port in ports:
            _check_nan_spreads(context, finding, group, port.name)
    if finding.held:
        yield finding


def _check_nan_spreads(context: Context, finding: Finding, group: str, name: str) -> None:
    """Fill one array with NaN: ``name`` in ``group``, e.g. ``out.W`` in ``parameters``. Check that
    the NaN reaches outputs, losses and gradients as in the oracle."""
    case = context.case
    arrays = getattr(case.material, group)
    material = replace(
        case.material, **{group: {**arrays, name: np.full_like(arrays[name], np.nan)}}
    )
    expected = case.gradients(material, f"nan in {group}: {name}").values
    context.remote.load(material)
    results = context.remote.gradients(material)
    expects_nan = found_nan = False
    for tensor, array in select_prefixes(
        expected, "output.", "loss", "metric.", "gradient."
    ).items():
        finding.held += 1
        actual = results.get(tensor)
        if not isinstance(actual, np.ndarray) or actual.shape != array.shape:
            finding.faults.append(f"{tensor}: no array of shape {list(array.shape)} was returned")
            continue
        is_nan = np.isnan(np.asarray(actual, np.float64))
        not_nan = np.isnan(array) & ~is_nan
        if tensor.startswith("gradient."):
            expects_nan = expects_nan or bool(np.isnan(array).all())
            found_nan = found_nan or bool(is_nan.any())
        elif not_nan.any():
            place = [int(index) for index in np.argwhere(not_nan)[0]]
            finding.faults.append(
                f"{tensor}: with NaN in {name}, {int(not_nan.sum())} entries are not NaN although "
                f"the oracle's are, the first at {place}"
            )
    if expects_nan and not found_nan:
        finding.faults.append(f"no gradient is NaN although all of {name} is NaN")
