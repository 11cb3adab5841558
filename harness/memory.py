"""The resident memory of this process, as Linux counts it."""

from __future__ import annotations

import re
from pathlib import Path


def forget_peak() -> None:
    """Have the kernel count the peak from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """The most bytes since :func:`forget_peak`, or since the start."""
    return _status("VmHWM")


def resident() -> int:
    """Bytes now."""
    return _status("VmRSS")


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def available() -> int:
    """Bytes that processes can still take, of the machine and of the control group."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    free = int(found[1]) * 1024 if found else 1 << 62
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - used))
