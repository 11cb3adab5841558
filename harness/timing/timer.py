"""Where the groups of a run are timed: what a run asks for, and this machine's answer."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from harness.oracle.case import BYTES, SECONDS, entries_of
from harness.oracle.patience import OracleFault, Patience, at_work, with_patience
from harness.results.speeds import SpeedFile
from harness.timing.card import slowed
from harness.timing.contestant import Contestant, TimedResult
from harness.timing.doubts import Load, doubts, other_work
from harness.timing.events import BenchEvents
from harness.timing.plan import BenchPlan
from harness.timing.request import Group
from harness.timing.rounds import measure
from harness.timing.workload import TimedCase
from harness.worker.worker import Worker

# Takes the results of a group; and of one that was timed elsewhere, the content of a file of them.
Keep = Callable[[Sequence[TimedResult], SpeedFile | None], None]

NO_NUMBER = (
    "what the oracle makes of the steps is infinite or NaN, so that nothing could be compared; "
    "harness check says where it begins"
)


class GroupTimer(Protocol):
    """Times the groups of a plan: on this machine, or on a cluster."""

    def run(self, keep: Keep) -> None:
        """Time all groups; each is kept as soon as it is timed."""

    def close(self) -> None:
        """End all that was started for it."""


class LocalTimer:
    """Times groups on this machine one after another, with a worker for each entry."""

    def __init__(self, plan: BenchPlan, events: BenchEvents) -> None:
        self._plan, self._request, self._events = plan, plan.request, events
        self.workers = {c.label: Worker(c.launch) for c in plan.entries}
        """By the label of an entry; none is started yet."""
        self._peaks: dict[str, dict[Any, float]] = {c.label: {} for c in plan.entries}
        self._shuffle = random.Random(plan.request.seed)
        self._own = 0.0  # of the machine's load, what is of the group before

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers.values():
            worker.close()

    def run(self, keep: Keep) -> None:
        """Time all groups, one after the other: never do two share the machine."""
        for group in self._plan.groups:
            keep(self.timed(group), None)

    def timed(self, group: Group) -> list[TimedResult]:
        """The cells of one group, with what makes their figures doubtful."""
        start, threads = Load.now(), float(self._request.thread_count)
        found = self._measured(group)
        load = Load(start, self._own, Load.now(), threads)
        cores = len(os.sched_getaffinity(0))
        for result in found:
            refused = result.status == "refused" and result.reason != NO_NUMBER
            if refused and (other := other_work(load, cores)):
                result.reason += f" ({other})"
            if result.measured:
                found_doubts = doubts(result.record.rate, load, cores)
                found_doubts += [*result.record.doubts, *slowed(result.record.card)]
                result.record.doubts = found_doubts
        self._own = threads
        return found

    def _measured(self, group: Group) -> list[TimedResult]:
        """The cells of one group, one for each entry."""
        request, entries = self._request, self._plan.entries
        try:
            case = self._case(group)
        except OracleFault as fault:
            return [TimedResult(group.cell(c.label), c, "broken", str(fault)) for c in entries]
        if case.means_nothing():
            return [TimedResult(group.cell(c.label), c, "refused", NO_NUMBER) for c in entries]
        contestants = [
            Contestant(
                entry,
                self.workers[entry.label],
                case,
                request.device,
                request.timeout,
                self._peaks[entry.label],
            )
            for entry in entries
        ]
        measure(contestants, request.path, request.rounds, self._shuffle, self._events)
        return [contestant.result for contestant in contestants]

    def _case(self, group: Group) -> TimedCase:
        """A group's case with all that is expected of it.

        Raises:
            OracleFault: there is not the time or the memory.
        """
        program = group.spec.program("training", **group.sizes)
        entries = entries_of(program, group.batch, group.time)
        patience = Patience(self._request.timeout)
        with with_patience(patience), at_work(entries * BYTES, entries * SECONDS):
            case = TimedCase(group, self._request.dtype, self._request.seed)
            self._events.expecting(group)
            # Computed before anyone is measured: the oracle takes all cores.
            assert case.expected.values
        return case
