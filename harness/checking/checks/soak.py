"""A soak: what goes wrong in one run of many, such as a race between threads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from harness.checking.checks.again import hold_again
from harness.checking.checks.context import Context
from harness.results.findings import Finding


def soak(context: Context) -> Iterator[Finding]:
    """Results and gradients of one batch, ``--repeat`` times: the same bits each time, where the
    backend's repeat."""
    if not context.repeat:
        return
    material = context.case.material
    context.remote.load(material)
    first = context.remote.gradients(material)
    finding, expected = Finding("soak"), partial(context.case.gradients, material, "main")
    for number in range(2, context.repeat + 2):
        found = context.remote.gradients(material)
        fault = f"call {number} gave another {{}} than call 1"
        finding.held += hold_again(context, finding, first, found, expected, fault)
    yield finding
