"""A soak: what goes wrong in one run of many, such as a race between threads."""

from __future__ import annotations

from collections.abc import Iterator

from harness.check.checks.context import Context, equal
from harness.check.findings import Finding


def soak(context: Context) -> Iterator[Finding]:
    """Results and gradients of one batch, ``--repeat`` times: the same bits each time."""
    if not context.repeat:
        return
    material = context.case.material
    context.remote.load(material)
    first = context.remote.gradients(material)
    finding = Finding("soak")
    for number in range(2, context.repeat + 2):
        found = context.remote.gradients(material)
        changed = [n for n, array in first.items() if not equal(array, found.get(n))]
        finding.held += len(first)
        if changed:
            finding.faults.append(f"call {number} gave another {', '.join(changed)} than call 1")
    yield finding
