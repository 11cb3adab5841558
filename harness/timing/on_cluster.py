"""A timing whose groups are run on a cluster: on each machine one at a time, which has all of its
processors, or a card."""

from __future__ import annotations

from dataclasses import replace

from harness.cluster.on_ray import Cluster, ClusterNode, Lost
from harness.cluster.spread import Queue, spread
from harness.results.speeds import SpeedFile
from harness.timing.contestant import TimedResult
from harness.timing.events import BenchEvents
from harness.timing.json_file import document
from harness.timing.plan import BenchPlan
from harness.timing.request import BenchRequest
from harness.timing.timer import Keep, LocalTimer

HOST = "harness.timing.on_cluster:NodeTimer"
KIND = "groups"


class ClusterTimer:
    """Times groups on the nodes of a cluster. See :class:`.timer.GroupTimer`."""

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
