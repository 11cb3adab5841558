"""What is known of a measured cell, field by field, as far as the measurement came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

# Of what a file of results has a place of its own for, or no use.
NOT_TOLD = frozenset({"hello", "settings", "latencies"})


@dataclass
class Record:
    """A cell as far as it was measured; the rest is None or empty. Seconds, bytes, and FLOP/s."""

    # What the worker says of itself, and the flags of its backend.
    hello: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    # A checksum of what the spec means, and of all sizes.
    model: str = ""
    # The paths that were tried (path, right, seconds, reason), the one that was taken, what runs
    # each layer on it, and how many steps go into one call.
    candidates: Sequence[Mapping[str, Any]] = ()
    path: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)
    many: int | None = None
    # Until the path was prepared, for its first step, and both without the usual time of a step.
    prepare: float | None = None
    first: float | None = None
    compile: float | None = None
    # steps, steady, medians
    warm_up: Mapping[str, Any] = field(default_factory=dict)
    # Of single steps that were waited for; spreads (median, q1, q3, min, max) of those, of steps in
    # a row, and of what is read in a second, with its unit.
    latencies: list[float] = field(default_factory=list)
    latency: Mapping[str, float] = field(default_factory=dict)
    step: Mapping[str, float] = field(default_factory=dict)
    rate: Mapping[str, Any] = field(default_factory=dict)
    # Operations of a step as written, by kind; those of the products that it cannot do without; and
    # what follows from them. ``peak``: large, own, own_size, and whose they are (large_by, own_by).
    flops: Mapping[str, int] = field(default_factory=dict)
    products: int | None = None
    flops_per_second: float | None = None
    peak: Mapping[str, Any] = field(default_factory=dict)
    share_of_peak: float | None = None
    share_of_own_peak: float | None = None
    bandwidth: Mapping[str, float] = field(default_factory=dict)
    share_of_bandwidth: float | None = None
    # What the card did during the rounds (see harness.worker.cards.summary), which one it was, and
    # the bytes on it of this worker and of all others.
    card: Mapping[str, Any] = field(default_factory=dict)
    # resident, device
    memory: Mapping[str, Any] = field(default_factory=dict)
    # seconds, share
    overhead: Mapping[str, float] = field(default_factory=dict)
    # What the proofs have found.
    values: Mapping[str, Any] = field(default_factory=dict)
    waits: Mapping[str, Any] = field(default_factory=dict)
    clock: Mapping[str, float] = field(default_factory=dict)
    pace: Mapping[str, float] = field(default_factory=dict)
    unseen: Mapping[str, Any] = field(default_factory=dict)
    handing_over: Mapping[str, float] = field(default_factory=dict)
    timed_way: Mapping[str, Any] = field(default_factory=dict)
    rounds_again: Mapping[str, Any] = field(default_factory=dict)
    later_step: Mapping[str, Any] = field(default_factory=dict)
    hardware: Mapping[str, float] = field(default_factory=dict)
    # Why the figure is worthless all the same, in words.
    doubts: Sequence[str] = ()

    def told(self) -> dict[str, Any]:
        """The fields that were reached, for a file of results."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in NOT_TOLD}
        return {name: value for name, value in found.items() if value or value == 0.0}
