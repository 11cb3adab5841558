"""The same call again: its bits, or agreement where a backend promises none (GPUs with atomics)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from harness.checking.checks.context import Context, equal, where_apart
from harness.oracle.yardstick import Expected
from harness.results.findings import Finding
from harness.runtime.tensors import whole


def hold_again(
    context: Context,
    finding: Finding,
    first: Mapping[str, Any],
    later: Mapping[str, Any],
    expected: Callable[[], Expected],
    fault: str,
) -> int:
    """Hold a later call against the first, in a finding.

    Args:
        first: Results of the first call by name, of any shapes.
        later: Those of the later one.
        expected: Gives what the oracle has for them, and is called only where the backend's bits
            do not repeat: its noise is what may lie between them.
        fault: What is wrong with a tensor that differs, with its name for ``{}``.

    Returns:
        How many tensors were to have the same bits.
    """
    if context.remote.repeats:
        finding.faults += [
            f"{fault.format(name)}{where_apart(later.get(name), array)}"
            for name, array in first.items()
            if not equal(array, later.get(name))
        ]
        return len(first)
    near = replace(expected(), values=whole(first))
    finding.deviations += [
        replace(d, name=fault.format(d.name)) for d in near.deviations(later, context.dtype)
    ]
    return 0
