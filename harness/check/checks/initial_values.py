"""Initial values: the law of every parameter, and that the backend holds what it was given."""

from __future__ import annotations

from collections.abc import Iterator

from harness.check.checks.context import Context, equal
from harness.check.findings import Finding
from harness.spec.initial_values import check_laws, initial_parameters


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
        if not equal(back.get(name), array.astype(context.kept)):
            finding.faults.append(f"{name} came back changed")
    yield finding
