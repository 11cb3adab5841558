"""Run ``harness bench`` on this machine or on a cluster, group after group."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from harness.cluster.on_ray import Cluster, ClusterNode, Lost, Queue, spread
from harness.files.system import usable_cores
from harness.oracle.case import BYTES, SECONDS, entries_of
from harness.oracle.time_limit import OracleFault, TimeLimit, with_time_limit, within_limits
from harness.results.merging import join_speeds
from harness.results.speeds import SpeedFile
from harness.timing.card import list_slowdowns
from harness.timing.contestant import BenchEvents, Contestant, TimedResult
from harness.timing.json_file import document
from harness.timing.noise import ROUGH, Load, describe_other_load, find_doubts
from harness.timing.request import BenchPlan, BenchRequest, Entry, Group
from harness.timing.rounds import measure
from harness.timing.workload import TimedCase
from harness.worker.worker import Worker

# A function that stores the results of a group. If another machine timed the group, it also gets
# the content of that machine's file.
Keep = Callable[[Sequence[TimedResult], SpeedFile | None], None]

NO_NUMBER = (
    "the oracle's results are infinite or NaN, so nothing can be compared; "
    "'harness check' shows the first such value"
)


class LocalTimer:
    """A timer of groups (a model with its sizes and mode) on this machine, with one worker per
    backend."""

    def __init__(self, plan: BenchPlan, events: BenchEvents) -> None:
        self._plan, self._request, self._events = plan, plan.request, events
        self.workers = {c.label: Worker(c.launch) for c in plan.entries}
        """The workers by the label of their entry. No worker is started yet."""
        self._peaks: dict[str, dict[Any, float]] = {c.label: {} for c in plan.entries}
        self._shuffle = random.Random(plan.request.seed)
        self._own = 0.0  # the load that the previous group caused

    def close(self) -> None:
        """Stop all workers."""
        for worker in self.workers.values():
            worker.close()

    def run(self, keep: Keep) -> None:
        """Time all groups one after another, so that no two groups compete for the machine.

        Call ``keep`` with the results of each group as soon as it is timed.
        """
        for group in self._plan.groups:
            keep(self.time_group(group), None)

    def time_group(self, group: Group) -> list[TimedResult]:
        """Time one group; return a result per backend. If a speed is unreliable, its result has the
        reasons."""
        start, threads = Load.now(), float(self._request.thread_count)
        results = self._measure_group(group)
        load = Load(start, self._own, Load.now(), threads)
        cores = usable_cores()
        for result in results:
            refused = result.status == "refused" and result.reason != NO_NUMBER
            if refused and (other := describe_other_load(load, cores)):
                result.reason += f" ({other})"
            if result.measured:
                reasons = find_doubts(result.record.rate, load, cores)
                reasons += [*result.record.doubts, *list_slowdowns(result.record.card)]
                reasons += [ROUGH] * self._request.quick
                result.record.doubts = reasons
        self._own = threads
        return results

    def _measure_group(self, group: Group) -> list[TimedResult]:
        request, entries = self._request, self._plan.entries
        try:
            case = self._make_case(group)
        except OracleFault as fault:
            return [TimedResult(group.cell(c.label), c, "broken", str(fault)) for c in entries]
        if case.is_not_comparable():
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

    def _make_case(self, group: Group) -> TimedCase:
        """Return the data on which a group is timed, with the results that the oracle expects.

        Raises:
            OracleFault: the oracle lacks time or memory to compute these results.
        """
        program = group.spec.program("training", **group.sizes)
        entries = entries_of(program, group.batch, group.time)
        patience = TimeLimit(self._request.timeout)
        with with_time_limit(patience), within_limits(entries * BYTES, entries * SECONDS):
            case = TimedCase(group, self._request.dtype, self._request.seed)
            self._events.expecting(group)
            # Compute this before any measurement, because the oracle uses all cores.
            assert case.expected.values
        return case


class Bench:
    """A run of ``harness bench``. Use it as a context manager, so that its workers stop at the end.

    ``entries`` defaults to the backends of the request. Raises :class:`UsageError` for an invalid
    request, and :class:`.on_ray.ClusterError` if the cluster does not exist.
    """

    def __init__(
        self,
        request: BenchRequest,
        entries: Sequence[Entry] | None = None,
        events: BenchEvents | None = None,
    ) -> None:
        self.request, self.events = request, events or BenchEvents()
        self.plan = BenchPlan.of(request, entries)
        self.timer: LocalTimer | ClusterTimer = (
            ClusterTimer(self.plan) if request.on else LocalTimer(self.plan, self.events)
        )
        self.results: list[TimedResult] = []
        """The results of all finished groups. They are also valid after an interruption."""
        self._contents: list[SpeedFile] = []  # of groups timed on other machines

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all workers and all processes on a cluster."""
        self.timer.close()

    def run(self) -> list[TimedResult]:
        """Time all cells, and return their results in the order of the plan.

        Raises:
            ClusterError: no node is left for the remaining groups.
        """
        self.events.planned(len(self.plan.cells))
        self.results, self._contents = [], []
        self.timer.run(self._store)
        place = {str(cell): number for number, cell in enumerate(self.plan.cells)}
        self.results.sort(key=lambda result: place[str(result.cell)])
        return self.results

    def _store(self, results: Sequence[TimedResult], content: SpeedFile | None) -> None:
        # Store results before they are reported. An interrupted run then has every result that it
        # reported.
        if content is not None:
            self._contents.append(content)
        self.results += results
        for result in results:
            self.events.ended(result)

    def document(self, planned: int | None = None) -> SpeedFile:
        """Return the content of a file with the results so far, see :func:`.json_file.document`. If
        the run was interrupted, ``planned`` is the number of cells to time.

        Raises:
            HarnessError: the results of several machines cannot be joined.
        """
        whole = document(self.request, self.results, planned, self.plan.record())
        if not self._contents:
            return whole
        found = join_speeds(self._contents)
        # Slopes and tunings compare several groups, so they are valid only if one machine timed
        # them all.
        apart = found.environment.machines
        names = {"incomplete"} if apart else {"incomplete", "slopes", "tunings"}
        told = {n: getattr(whole.harness, n) for n in names & whole.harness.model_fields_set}
        return found.model_copy(update={"harness": found.harness.model_copy(update=told)})


HOST = "harness.timing.run:NodeTimer"
KIND = "groups"


class ClusterTimer:
    """A timer of groups (a model with its sizes and mode) on a cluster.

    Each machine times a single group at a time, with all of its cores or with one GPU.
    """

    def __init__(self, plan: BenchPlan) -> None:
        """Connect to the cluster.

        Raises:
            UsageError: the cluster cannot be used with these options, see :class:`.on_ray.Cluster`.
            ClusterError: there is no cluster.
        """
        self._plan, self._request = plan, plan.request
        assert plan.request.on is not None
        self._cluster = Cluster(plan.request.on)

    def close(self) -> None:
        """Stop all processes on the cluster."""
        self._cluster.close()

    def run(self, keep: Keep) -> None:
        """Time all groups; call ``keep`` with the results of each group as soon as it is timed.

        Raises:
            ClusterError: no node is left for the remaining groups.
        """
        queue = Queue(range(len(self._plan.groups)), lambda _: KIND)
        machines: dict[str, str] = {}
        on_card = self._request.device != "cpu"

        def slots(node: ClusterNode) -> int:
            # Nodes with the same address share their cores, so they count as one machine.
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
                            keep(*self._lost_group(number, f"{lost} (last on {node})"))
                            queue.done(number)
                        raise
                    queue.done(number)

        spread(self._cluster, queue, slots, work)

    def _lost_group(self, number: int, why: str) -> tuple[list[TimedResult], SpeedFile]:
        """Return a result with the status ``broken`` and the reason ``why`` for each cell of the
        group with this number. It is used if two processes failed while they timed this group."""
        words = f"two processes that timed this cell were lost: {why}"
        plan, group = self._plan, self._plan.groups[number]
        found = [TimedResult(group.cell(e.label), e, "broken", words) for e in plan.entries]
        return found, document(self._request, found, plan=plan.record())


class NodeTimer:
    """A timer of groups on one node of the cluster. It runs in a process on that node, and starts
    the workers there."""

    def __init__(self, request: BenchRequest) -> None:
        self._plan = BenchPlan.of(request)
        self._timer = LocalTimer(self._plan, BenchEvents())

    def run(self, number: int) -> tuple[list[TimedResult], SpeedFile]:
        """Time the group with index ``number``; return its results, and the content of a file with
        them."""
        found = self._timer.time_group(self._plan.groups[number])
        return found, document(self._plan.request, found, plan=self._plan.record())
