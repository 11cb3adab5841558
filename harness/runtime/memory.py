"""Measure this process's resident memory, and the memory that it may still allocate."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path

from harness.errors import UsageError
from harness.program.ir import Program


def forget_peak() -> None:
    """Return free memory to the kernel, and reset its record of this process's peak memory; Linux
    only."""
    # Without glibc, e.g. on Alpine, the C library decides by itself.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Return the peak of this process's resident bytes since :func:`forget_peak`, or since the
    start; Linux only.

    The function ``resource.getrusage`` does not help, because its peak cannot be reset.
    """
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def resident() -> int:
    """Return the resident bytes of this process now; Linux only.

    The function does not use psutil: workers call it, and an environment that was made for an older
    harness may lack psutil.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def available() -> int:
    """Return the bytes that this process may still allocate, given the machine's memory and the
    limits of its cgroups."""
    import psutil

    return min(int(psutil.virtual_memory().available), *_allowed_by_groups())


def _allowed_by_groups() -> list[int]:
    """Return for each cgroup of this process the number of bytes that it may still allocate; 2**62
    if the cgroup has no limit."""
    allowances = [1 << 62]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = Path("/sys/fs/cgroup", controllers)
        names = ("limit_in_bytes", "usage_in_bytes") if controllers else ("max", "current")
        # In a container the group is often mounted as the root.
        for folder in {root / path.lstrip("/"), root}:
            try:
                limit, used = (int((folder / f"memory.{n}").read_text()) for n in names)
            except (OSError, ValueError):  # no such file, or no limit: "max"
                continue
            allowances.append(max(0, limit - used))
    return allowances


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
    needed, free = permanent + largest, available()
    if needed > free:
        listed = ", ".join(f"{name} {size:,}" for name, size in {**sizes, **user_sizes}.items())
        raise UsageError(
            f"{program.name} needs {needed / GIB:,.1f} GiB of memory or more with {listed}, but "
            f"only {free / GIB:,.1f} GiB are free: use smaller sizes"
        )
