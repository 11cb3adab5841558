"""A run of ``harness bench``, on this machine or on a cluster: group after group, interleaved."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from harness.cluster.on_ray import Cluster, ClusterNode, Lost, Queue, spread
from harness.oracle.case import BYTES, SECONDS, entries_of
from harness.oracle.patience import OracleFault, Patience, at_work, with_patience
from harness.results.merging import join
from harness.results.speeds import SpeedFile
from harness.timing.card import slowed
from harness.timing.contestant import BenchEvents, Contestant, TimedResult
from harness.timing.json_file import document
from harness.timing.noise import Load, doubts, other_work
from harness.timing.request import BenchPlan, BenchRequest, Entry, Group
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


class Bench:
    """Times a request. Use as a context manager, so that no worker outlives it.

    ``entries`` are those of the request if left out. Raises :class:`UsageError` for a request
    that cannot be, and :class:`.on_ray.ClusterError` for one on a cluster that there is not.
    """

    def __init__(
        self,
        request: BenchRequest,
        entries: Sequence[Entry] | None = None,
        events: BenchEvents | None = None,
    ) -> None:
        self.request, self.events = request, events or BenchEvents()
        self.plan = BenchPlan.of(request, entries)
        self.timer: GroupTimer = (
            ClusterTimer(self.plan) if request.on else LocalTimer(self.plan, self.events)
        )
        self.results: list[TimedResult] = []
        """Of the groups that are done, also of a run that was interrupted."""
        self._contents: list[SpeedFile] = []  # of the groups that were timed elsewhere

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, and all that runs on a cluster."""
        self.timer.close()

    def run(self) -> list[TimedResult]:
        """All cells, in the order of the plan.

        Raises:
            ClusterError: no node is left that could do the rest.
        """
        self.events.planned(len(self.plan.cells))
        self.results, self._contents = [], []
        self.timer.run(self._keep)
        place = {str(cell): number for number, cell in enumerate(self.plan.cells)}
        self.results.sort(key=lambda result: place[str(result.cell)])
        return self.results

    def _keep(self, found: Sequence[TimedResult], content: SpeedFile | None) -> None:
        # Kept before they are told of: what was told is there if the run is interrupted.
        if content is not None:
            self._contents.append(content)
        self.results += found
        for result in found:
            self.events.ended(result)

    def document(self, planned: int | None = None) -> SpeedFile:
        """The content of the file of results so far; ``planned`` as of :func:`.json_file.document`.
        Of a cluster, each machine has said of itself what it is.

        Raises:
            HarnessError: what several machines have given cannot be joined.
        """
        whole = document(self.request, self.results, planned, self.plan.record())
        if not self._contents:
            return whole
        found = join(self._contents)
        # What is told of several groups together is there only if they were on one machine.
        apart = found.environment.machines
        names = {"incomplete"} if apart else {"incomplete", "slopes", "tunings"}
        told = {n: getattr(whole.harness, n) for n in names & whole.harness.model_fields_set}
        return found.model_copy(update={"harness": found.harness.model_copy(update=told)})


HOST = "harness.timing.run:NodeTimer"
KIND = "groups"


class ClusterTimer:
    """Times groups on the nodes of a cluster: on each machine one at a time, which has all of its
    processors, or a card."""

    def __init__(self, plan: BenchPlan) -> None:
        """Connect.

        Raises:
            UsageError: as of :class:`.on_ray.Cluster`.
            ClusterError: there is no cluster.
        """
        self._plan, self._request = plan, plan.request
        assert plan.request.on is not None
        self._cluster = Cluster(plan.request.on)

    def close(self) -> None:
        """End all that runs on the cluster."""
        self._cluster.close()

    def run(self, keep: Keep) -> None:
        """Time all groups; each is kept as soon as it is timed.

        Raises:
            ClusterError: no node is left that could do the rest.
        """
        queue = Queue(range(len(self._plan.groups)), lambda _: KIND)
        machines: dict[str, str] = {}
        on_card = self._request.device != "cpu"

        def slots(node: ClusterNode) -> int:
            # Nodes of one address share their processors: they are one machine.
            first = machines.setdefault(node.address, node.id) == node.id
            return int(first and (node.gpus > 0 or not on_card))

        def work(node: ClusterNode, _: str) -> None:
            asked = replace(self._request, on=None)
            actor = self._cluster.actor(node, HOST, asked, cpus=node.cpus, gpus=int(on_card))
            with actor:
                while (number := queue.take(KIND)) is not None:
                    try:
                        keep(*actor.call("run", number))
                    except Lost as lost:
                        if not queue.lost(number):
                            keep(*self._given_up(number, f"{lost} (last on {node})"))
                            queue.done(number)
                        raise
                    queue.done(number)

        spread(self._cluster, queue, slots, work)

    def _given_up(self, number: int, why: str) -> tuple[list[TimedResult], SpeedFile]:
        """Of a group that costs every process in which it is timed, no cell has a speed."""
        words = f"the process that timed it was lost, and a second one too: {why}"
        plan, group = self._plan, self._plan.groups[number]
        found = [TimedResult(group.cell(e.label), e, "broken", words) for e in plan.entries]
        return found, document(self._request, found, plan=plan.record())


class NodeTimer:
    """What a process on a node does: it times groups with workers of its own."""

    def __init__(self, request: BenchRequest) -> None:
        self._plan = BenchPlan.of(request)
        self._timer = LocalTimer(self._plan, BenchEvents())

    def run(self, number: int) -> tuple[list[TimedResult], SpeedFile]:
        """The results of a group of the plan, and the content of a file with them."""
        found = self._timer.timed(self._plan.groups[number])
        return found, document(self._plan.request, found, plan=self._plan.record())
