"""A timing whose groups are run on a cluster: on each machine one at a time, which has all of its
processors, or a card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.bench.contestant import TimedResult
from harness.bench.json_file import document
from harness.bench.merge import join
from harness.bench.request import BenchRequest, Entry
from harness.bench.run import Bench, BenchEvents
from harness.cluster.on_ray import Actor, Cluster, ClusterNode, Lost
from harness.cluster.spread import Queue, spread

HOST = "harness.bench.on_cluster:Groups"
KIND = "groups"


def bench_of(request: BenchRequest, events: BenchEvents | None = None) -> Bench:
    """The timing that a request asks for: on this machine, or on a cluster.

    Raises:
        UsageError: as of :class:`Bench`, and of :class:`.on_ray.Cluster`.
        ClusterError: there is no cluster.
    """
    if request.on:
        return ClusterBench(request, events=events)
    return Bench(request, events=events)


class ClusterBench(Bench):
    """Times a request on a cluster."""

    def __init__(
        self,
        request: BenchRequest,
        entries: Sequence[Entry] | None = None,
        events: BenchEvents | None = None,
    ) -> None:
        super().__init__(request, entries, events)
        assert request.on is not None
        self._cluster = Cluster(request.on)
        self._documents: list[dict[str, Any]] = []

    def close(self) -> None:
        """End all workers, and all that runs on the cluster."""
        super().close()
        self._cluster.close()

    def run(self) -> list[TimedResult]:
        """All cells, in the order of the plan.

        Raises:
            ClusterError: no node is left that could do the rest.
        """
        self.events.planned(self.planned)
        self.results, self._documents = [], []
        queue = Queue(range(len(self.groups)), lambda _: KIND)
        machines: dict[str, str] = {}
        on_card = self.request.device != "cpu"

        def slots(node: ClusterNode) -> int:
            # Nodes of one address share their processors: they are one machine.
            first = machines.setdefault(node.address, node.id) == node.id
            return int(first and (node.gpus > 0 or not on_card))

        def work(node: ClusterNode, _: str) -> None:
            asked = replace(self.request, on=None)
            actor = self._cluster.actor(node, HOST, asked, cpus=node.cpus, gpus=int(on_card))
            with actor:
                while (number := queue.take(KIND)) is not None:
                    try:
                        self._run_there(actor, number)
                    except Lost as lost:
                        if not queue.lost(number):
                            self._give_up(number, f"{lost} (last on {node})")
                            queue.done(number)
                        raise
                    queue.done(number)

        spread(self._cluster, queue, slots, work)
        cells = [group.cell(entry.label) for group in self.groups for entry in self.entries]
        place = {str(cell): number for number, cell in enumerate(cells)}
        self.results.sort(key=lambda result: place[str(result.cell)])
        return self.results

    def document(self, planned: int | None = None) -> dict[str, Any]:
        """The content of the file of results so far; of each machine what it said of itself."""
        if not self._documents:
            return super().document(planned)
        found, whole = join(self._documents), super().document()
        if "machines" not in found["machine_info"]["harness"]:
            # What is told of several groups together, which were on one machine.
            found["harness"] |= {name: whole["harness"][name] for name in ("slopes", "tunings")}
        if planned is not None:
            found["harness"]["incomplete"] = {"done": len(self.results), "planned": planned}
        return found

    def _run_there(self, actor: Actor, number: int) -> None:
        found, content = actor.call("run", number)
        self._documents.append(content)
        self._keep(found)

    def _give_up(self, number: int, why: str) -> None:
        """Of a group that costs every process in which it is timed, no cell has a speed."""
        words = f"the process that timed it was lost, and a second one too: {why}"
        group = self.groups[number]
        found = [TimedResult(group.cell(e.label), e, "broken", words) for e in self.entries]
        self._documents.append(document(self.request, found, plan=self.plan_record()))
        self._keep(found)


class Groups:
    """What a process on a node does: it times groups with workers of its own."""

    def __init__(self, request: BenchRequest) -> None:
        self._bench = Bench(request)

    def run(self, number: int) -> tuple[list[TimedResult], dict[str, Any]]:
        """The results of a group of the plan, and the content of a file with them."""
        self._bench.results = self._bench.timed(self._bench.groups[number])
        return self._bench.results, self._bench.document()
