"""Where a run took place: what decides its speed and is not the code that was timed."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.bench.contestant import CellResult
from harness.bench.request import BenchRequest
from harness.worker.machine import machine

CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq")
SMI_FIELDS = ("name", "driver_version", "power.limit", "clocks.max.sm", "clocks.max.mem")


def environment(request: BenchRequest, results: Iterable[CellResult]) -> dict[str, Any]:
    """Machine, request, and what each worker said of itself."""
    return {
        "harness": version("backend-comparison-harness"),
        "machine": {**machine(), **clocks()},
        "gpus": gpus(),
        "device": request.device,
        "dtype": request.dtype,
        "path": request.path,
        "threads": request.thread_count,
        "rounds": request.rounds,
        "seed": request.seed,
        "load": list(os.getloadavg()),
        "workers": workers(results),
    }


def workers(results: Iterable[CellResult]) -> dict[str, Any]:
    """By contestant: versions, interpreter, the variables that were set, flags of the backend."""
    found: dict[str, Any] = {}
    for result in results:
        hello: Mapping[str, Any] = result.record.get("hello", {})
        if not hello or result.contestant.label in found:
            continue
        found[result.contestant.label] = {
            "versions": dict(hello.get("versions", {})),
            "python": hello.get("python", ""),
            "environment": {**hello.get("environment", {}), **result.contestant.launch.environment},
            "settings": dict(result.record.get("settings", {})),
        }
    return found


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


def gpus() -> list[dict[str, str]]:
    """Name, driver, power limit and clocks of each GPU; none where nvidia-smi is not there."""
    command = ["nvidia-smi", f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode:
        return []
    rows = [line.split(", ") for line in done.stdout.splitlines() if line.strip()]
    return [dict(zip(SMI_FIELDS, row, strict=False)) for row in rows]
