"""Whether a program can fit this machine at all, before the first array of it is made."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from harness.errors import UsageError
from harness.program.ir import Program
from harness.runtime.memory import available

FLOAT = 8  # bytes: the oracle computes in float64
# Of each parameter: its value, the oracle's, the worker's, and a gradient.
COPIES = 4
GIB = 1 << 30


def check_fits(program: Program, batch: int, time: int, given: Mapping[str, int]) -> None:
    """:class:`UsageError` for a program that needs more memory than there is.

    What is counted is less than what a run takes: all arrays that come in or go out, and of those
    within only the largest. ``given`` are the sizes that were asked for, to be named.
    """
    sizes = {"batch": batch, "time": time}
    ports = (*program.parameters, *program.statistics)
    kept = sum(prod(program.shape(port, sizes)) for port in ports) * FLOAT * COPIES
    largest = 0
    known = {**program.sizes, **sizes}
    for type_ in program.types.values():
        largest = max(largest, prod(dim.resolve(known) for dim in type_.shape) * FLOAT)
    needed, free = kept + largest, available()
    if needed > free:
        listed = ", ".join(f"{name} {size:,}" for name, size in {**sizes, **given}.items())
        raise UsageError(
            f"{program.name} needs {needed / GIB:,.1f} GiB of memory or more with {listed}, and "
            f"{free / GIB:,.1f} GiB are free here: give smaller sizes"
        )
