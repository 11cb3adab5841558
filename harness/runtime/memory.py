"""Check that a program fits into memory."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from harness.errors import UsageError
from harness.files.system import available_memory
from harness.program.ir import Program

FLOAT = 8  # bytes: the oracle computes in float64
# The copies of each parameter in memory: the original, the oracle's, the worker's, and a gradient.
COPIES = 4
GIB = 1 << 30


def check_fits(program: Program, batch: int, time: int, user_sizes: Mapping[str, int]) -> None:
    """Check that a program fits into the available memory, before an array is made.

    The estimate is a lower bound: all parameters and statistics, and the largest other value.
    ``user_sizes`` are the sizes that the user set; the message names them.

    Raises:
        UsageError: the program needs more memory than is available.
    """
    sizes = {"batch": batch, "time": time}
    ports = (*program.parameters, *program.statistics)
    permanent = sum(prod(program.shape(port, sizes)) for port in ports) * FLOAT * COPIES
    largest = 0
    all_sizes = {**program.sizes, **sizes}
    for type_ in program.types.values():
        largest = max(largest, prod(dim.resolve(all_sizes) for dim in type_.shape) * FLOAT)
    needed, free = permanent + largest, available_memory()
    if needed > free:
        listed = ", ".join(f"{name} {size:,}" for name, size in {**sizes, **user_sizes}.items())
        raise UsageError(
            f"{program.name} needs {needed / GIB:,.1f} GiB of memory or more with {listed}, but "
            f"only {free / GIB:,.1f} GiB are free: use smaller sizes"
        )
