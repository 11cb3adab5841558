"""Initial values: the law of every parameter, and that the backend holds what it was given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.arrays import ArrayDict
from harness.checking.checks.context import Context, equal, where_apart
from harness.language.initial_values import (
    check_laws,
    initial_parameters,
    initial_state,
    initial_statistics,
)
from harness.oracle.tolerance import Deviation, prefixed
from harness.results.findings import Finding


def initial_values(context: Context) -> Iterator[Finding]:
    """Draws the parameters at the spec's own sizes, checks their laws, and sends them through the
    backend: what comes back must be the same bits, in the run's dtype."""
    case = context.case
    own = context.own.training
    if not own.parameters:
        return
    faults = check_laws(own, initial_parameters(own, case.seed))
    finding = Finding("initial-values", faults=faults, held=len(own.parameters))
    drawn = initial_parameters(case.training, case.seed)
    context.remote.call("load", parameters=drawn, statistics=case.material.statistics)
    back = context.remote.call("read")["parameters"]
    for name, array in drawn.items():
        finding.held += 1
        sent, came = array.astype(context.kept), back.get(name)
        if not equal(came, sent):
            finding.faults.append(f"{name} came back changed{where_apart(came, sent)}")
    if case.training.loss is not None and not context.brief:
        finding.deviations = _from_there(context, drawn)
    yield finding


def _from_there(context: Context, drawn: ArrayDict) -> list[Deviation]:
    """A pass from where every training begins: scales of 1, biases, states and means of 0."""
    case, remote = context.case, context.remote
    statistics = initial_statistics(case.training)
    state = initial_state(case.training, case.batch)
    start = replace(case.material, parameters=drawn, statistics=statistics, state=state)
    remote.load(start)
    tested = remote.forward("inference", start.inputs, state)
    deviations = context.finding("", tested, case.forward("inference", start, "start")).deviations
    expected = case.gradients(start, "start").of_finite_gradients()
    deviations += context.finding("", remote.gradients(start), expected).deviations
    return prefixed("at the start, ", deviations)
