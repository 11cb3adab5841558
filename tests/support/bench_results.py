"""Invented results of ``harness bench``, for tests of code that reads results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.files.forms import formed
from harness.results.speeds import SpeedFile
from harness.timing.contestant import Record, TimedResult
from harness.timing.rates import rates, spread
from harness.timing.request import BenchRequest, Entry, TimedCell
from harness.worker.launch import Launch

SPEC = "lesson6/sequence_rnn"
REQUEST = BenchRequest(specs=(SPEC,), backends=("numpy", "torch"), rounds=5, threads=2)
# The times of rounds, relative to their median.
NOISE = (0.98, 1.01, 1.0, 0.99, 1.02)


def result(
    backend: str = "numpy",
    step: float = 0.001,
    *,
    mode: str = "train",
    batch: int = 64,
    time: int = 8,
    sizes: Mapping[str, int] | None = None,
    tuning: str = "",
    ratio: float = 2.0,
    noise: Sequence[float] = NOISE,
) -> TimedResult:
    """Return the result of a timed cell whose steps take ``step`` seconds."""
    label = f"{backend}+{tuning}" if tuning else backend
    cell = TimedCell(SPEC, label, mode, batch, time, dict(sizes or {}))
    entry = Entry(label, Launch(backend, environment={"OMP_NUM_THREADS": "2"}), tuning)
    seconds = [step * factor for factor in noise]
    record = {
        "hello": {"versions": {backend: "1.0"}, "python": "3.11.7", "environment": {}},
        "settings": {"tf32": "False"},
        "path": "derived",
        "many": 1,
        "rate": {"unit": "characters", **rates(batch * time, spread(seconds))},
        "step": spread(seconds),
        "latency": spread(seconds),
        "values": {"ratio": ratio, "digits": 5.25, "worst": "step 1: loss"},
        "flops_per_second": 1e11,
        "share_of_peak": 0.5,
        "share_of_own_peak": 0.75,
        "compile": 0.25,
        "first": 0.5,
        "warm_up": {"steps": 40, "steady": True, "medians": [step, step]},
        "memory": {"resident": 100 << 20, "device": None},
    }
    return TimedResult(cell, entry, seconds=seconds, steps=100, record=Record(**record))


def speed_file(content: Mapping[str, Any]) -> SpeedFile:
    """Return a speed file parsed from JSON data, which a test may have changed."""
    return formed(content, SpeedFile)


def refused(
    backend: str = "torch", reason: str = "differs: step 1: loss", **where: Any
) -> TimedResult:
    """Return the result of a cell that has no speed, with the reason."""
    found = result(backend, **where)
    found.status, found.reason, found.seconds = "refused", reason, []
    return found
