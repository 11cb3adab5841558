"""The machine that workers run on."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
from pathlib import Path
from typing import Any

from harness.files.system import memory

CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq")
# A number that a system got when it was installed; see machine-id(5).
NUMBERS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def machine() -> dict[str, Any]:
    """What this machine is: processor, cores, memory in bytes, kernel and Python."""
    return {
        "host": platform.node(),
        "id": identity(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory": memory(),
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def identity() -> str:
    """What tells this machine from all others, and is the same after the next start.

    A digest of its number, its name and its processor: images of containers share their number,
    and names such as ``localhost`` are those of many. The number itself is nobody's business.
    """
    number = ""
    for path in NUMBERS:
        with contextlib.suppress(OSError):
            number = number or path.read_text().strip()
    parts = "\n".join(("harness", number, platform.node(), _cpu_model()))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def clocks() -> dict[str, Any]:
    """The governor and the clock of the first core, in MHz, where they can be read."""
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError):
        found["governor"] = (CPU / "scaling_governor").read_text().strip()
        found["highest_mhz"] = int((CPU / "cpuinfo_max_freq").read_text()) / 1000
    with contextlib.suppress(OSError):
        clock = re.search(r"cpu MHz\s*: ([\d.]+)", Path("/proc/cpuinfo").read_text())
        if clock:
            found["mhz"] = float(clock[1])
    return found
