"""The machine that workers run on."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from pathlib import Path
from typing import Any

CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq")


def machine() -> dict[str, Any]:
    """What this machine is: processor, cores, memory in bytes, kernel and Python."""
    return {
        "host": platform.node(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


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
