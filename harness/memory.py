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
