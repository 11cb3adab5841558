"""Where a run took place: what decides its speed and is not the code that was timed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from harness.timing.contestant import TimedResult
from harness.timing.request import BenchRequest
from harness.worker.cards import cards
from harness.worker.machine import clocks, machine


def environment(request: BenchRequest, results: Iterable[TimedResult]) -> dict[str, Any]:
    """Machine, request, and what each worker said of itself."""
    return {
        "harness": version("backend-comparison-harness"),
        "machine": {**machine(), **clocks()},
        "gpus": cards(),
        "device": request.device,
        "dtype": request.dtype,
        "path": request.path,
        "threads": request.thread_count,
        "rounds": request.rounds,
        "seed": request.seed,
        "load": list(os.getloadavg()),
        "workers": workers(results),
    }


def workers(results: Iterable[TimedResult]) -> dict[str, Any]:
    """By entry: versions, interpreter, the variables that were set, flags of the backend."""
    found: dict[str, Any] = {}
    for result in results:
        hello = result.record.hello
        if not hello or result.entry.label in found:
            continue
        found[result.entry.label] = {
            "versions": dict(hello.get("versions", {})),
            "python": hello.get("python", ""),
            "environment": {**hello.get("environment", {}), **result.entry.launch.environment},
            "settings": dict(result.record.settings),
        }
    return found
