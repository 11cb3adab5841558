"""A run of ``harness bench``: a worker for each entry, group after group, all interleaved."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from harness.bench.card import slowed
from harness.bench.contestant import Contestant, TimedResult
from harness.bench.doubts import Load, doubts
from harness.bench.json_file import document
from harness.bench.request import (
    BenchRequest,
    Entry,
    Group,
    check_request,
    entries_from,
    groups_of,
    lacking_of,
)
from harness.bench.rounds import measure
from harness.bench.workload import TimedCase
from harness.oracle.case import BYTES, SECONDS, entries_of
from harness.oracle.patience import OracleFault, Patience, at_work, with_patience
from harness.shards import plan_record
from harness.worker.worker import Worker


class BenchEvents:
    """What a run tells while it goes; override what is of interest."""

    def planned(self, cells: int) -> None:
        """The number of cells, before the first."""

    def expecting(self, group: Group) -> None:
        """The oracle computes what a group's results must be."""

    def doing(self, result: TimedResult, what: str) -> None:
        """A part of a cell's measurement begins."""

    def ended(self, result: TimedResult) -> None:
        """A cell is done."""


class Bench:
    """Times a request. Use as a context manager, so that no worker outlives it.

    ``entries`` are those of the request if left out. Raises :class:`UsageError` for a request
    that cannot be.
    """

    def __init__(
        self,
        request: BenchRequest,
        entries: Sequence[Entry] | None = None,
        events: BenchEvents | None = None,
    ) -> None:
        check_request(request)
        self.request, self.events = request, events or BenchEvents()
        self.entries = list(entries_from(request) if entries is None else entries)
        self.lacking: Mapping[str, str] = lacking_of(request) if entries is None else {}
        """Backends that are left out, and what brings their framework."""
        self.plan = groups_of(request)
        shard = request.shard
        # A group is timed interleaved, and so on one machine.
        named = attrgetter("name")
        self.groups = self.plan if shard is None else shard.part(self.plan, named, "group")
        self._workers = {c.label: Worker(c.launch) for c in self.entries}
        self._peaks: dict[str, dict[Any, float]] = {c.label: {} for c in self.entries}
        self._shuffle = random.Random(request.seed)
        self._own = 0.0  # of the machine's load, what is of the group before
        self.results: list[TimedResult] = []
        """Of the groups that are done, also of a run that was interrupted."""

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers.values():
            worker.close()

    def run(self) -> list[TimedResult]:
        """All cells, in the order of the plan."""
        self.events.planned(self.planned)
        self.results = []
        for group in self.groups:
            self._keep(self.timed(group))
        return self.results

    def timed(self, group: Group) -> list[TimedResult]:
        """The cells of one group, with what makes their figures doubtful."""
        start, threads = Load.now(), float(self.request.thread_count)
        found = self.run_group(group)
        load = Load(start, self._own, Load.now(), threads)
        for result in found:
            if result.measured:
                cores = len(os.sched_getaffinity(0))
                found_doubts = doubts(result.record.rate, load, cores)
                result.record.doubts = [*found_doubts, *slowed(result.record.card)]
        self._own = threads
        return found

    def _keep(self, found: Sequence[TimedResult]) -> None:
        # Kept before they are told of: what was told is there if the run is interrupted.
        self.results += found
        for result in found:
            self.events.ended(result)

    def document(self, planned: int | None = None) -> dict[str, Any]:
        """The content of the file of results so far; ``planned`` as of :func:`.json_file.document`.

        Raises:
            HarnessError: what several machines have given cannot be joined.
        """
        return document(self.request, self.results, planned, self.plan_record())

    def plan_record(self) -> dict[str, Any]:
        """What a file of results says of the whole plan."""
        entries = (entry.label for entry in self.entries)
        names = ["\n".join((*g.name, e)) for g, e in itertools.product(self.plan, entries)]
        return plan_record(names, self.request.shard)

    @property
    def planned(self) -> int:
        """The number of cells."""
        return len(self.groups) * len(self.entries)

    def run_group(self, group: Group) -> list[TimedResult]:
        """The cells of one group, one for each entry."""
        request = self.request
        try:
            case = self._case(group)
        except OracleFault as fault:
            return [TimedResult(group.cell(c.label), c, "broken", str(fault)) for c in self.entries]
        contestants = [
            Contestant(
                entry,
                self._workers[entry.label],
                case,
                request.device,
                request.timeout,
                self._peaks[entry.label],
            )
            for entry in self.entries
        ]
        measure(contestants, request.path, request.rounds, self._shuffle, self.events.doing)
        return [contestant.result for contestant in contestants]

    def _case(self, group: Group) -> TimedCase:
        """A group's case with all that is expected of it.

        Raises:
            OracleFault: there is not the time or the memory.
        """
        program = group.spec.program("training", **group.sizes)
        entries = entries_of(program, group.batch, group.time)
        patience = Patience(self.request.timeout)
        with with_patience(patience), at_work(entries * BYTES, entries * SECONDS):
            case = TimedCase(group, self.request.dtype, self.request.seed)
            self.events.expecting(group)
            # Computed before anyone is measured: the oracle takes all cores.
            assert case.expected.values
        return case
