"""Every primitive by itself: the shape and the dtype of what it gives."""

from __future__ import annotations

from collections.abc import Iterator

from harness.checking.checks.context import Context
from harness.results.findings import Finding


def primitives(context: Context) -> Iterator[Finding]:
    """Each primitive that the model makes use of, at the types at which it does, once a process."""
    case = context.case
    probed = context.remote.probe(case.batch, case.time)
    yield Finding(
        "primitives",
        faults=list(probed["faults"]),
        held=probed["tried"],
        traceback=probed["traceback"],
    )
