"""A run of ``harness bench``: a worker for each entry, group after group, all interleaved."""

from __future__ import annotations

from collections.abc import Sequence

from harness.results.speeds import SpeedFile
from harness.timing.contestant import TimedResult
from harness.timing.events import BenchEvents
from harness.timing.json_file import document
from harness.timing.merge import join
from harness.timing.on_cluster import ClusterTimer
from harness.timing.plan import BenchPlan
from harness.timing.request import BenchRequest, Entry
from harness.timing.timer import GroupTimer, LocalTimer


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
