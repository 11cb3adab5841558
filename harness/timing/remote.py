"""The pipeline of a worker as typed calls, which :mod:`harness.runtime.step_service` answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.arrays import Arrays
from harness.worker import answers
from harness.worker.remote import answered
from harness.worker.worker import Outcome, Worker

Results = dict[str, Any]
Size = tuple[int, int, int]


@dataclass(frozen=True)
class StepRemote:
    """Each call must end ``timeout`` seconds after it began.

    All methods raise :class:`harness.worker.remote.WorkerFault` for a call that fails.
    """

    worker: Worker
    timeout: float

    def prepare(self, payload: Mapping[str, Any], beside: bool = False) -> Mapping[str, Any]:
        """Prepare a pipeline, in place of the last one or beside it: ``paths``, ``seconds``,
        ``many`` and ``settings``. The payload is :meth:`harness.timing.workload.TimedCase.payload`.
        """
        more = {"beside": True} if beside else {}  # which a baseline need not know
        reply: Mapping[str, Any] = self._ask("prepare", **payload, **more).value
        return reply

    def select(self, path: str) -> None:
        """Go on with the pipeline of a path, and let all others go."""
        self._ask("select", path=path)

    def together(self, wanted: bool) -> int:
        """Have several steps in one call, or not; how many there are."""
        return int(self._ask("together", wanted=wanted).value)

    def feed(self, batches: Sequence[Mapping[str, Arrays]], beside: bool = False) -> None:
        """Other batches of the same shapes, in place of all or beside the first."""
        self._ask("feed", batches=batches, beside=beside)

    def turn(self, number: int) -> None:
        """Go on with the first set of batches (0), or with the one beside it (1)."""
        self._ask("turn", number=number)

    def restart(self, parameters: Arrays | None = None) -> None:
        """Begin anew, from the first parameters or from others."""
        more = {} if parameters is None else {"parameters": parameters}  # see prepare()
        self._ask("restart", **more)

    def latency(self, first: int, count: int) -> list[float]:
        """Seconds of each of ``count`` steps, every one waited for."""
        return [float(s) for s in self._ask("latency", first=first, count=count).value]

    def stages(self, first: int, count: int, many: int = 1) -> list[tuple[float, float, float]]:
        """Of each step, or call of ``many``, the seconds until it has begun, until it is done, and
        of another reading."""
        found = self._ask("stages", first=first, count=count, many=many).value
        return [(begun, done, again) for begun, done, again in found]

    def throughput(self, first: int, count: int) -> float:
        """Seconds of ``count`` steps with one wait at their end."""
        return float(self._ask("throughput", first=first, count=count).value)

    def values(self, first: int, count: int) -> list[Results]:
        """The results of each of ``count`` steps."""
        return list(self._ask("values", first=first, count=count).value)

    def seconds_of_values(self, first: int, count: int) -> float:
        """The seconds that the worker took to answer :meth:`values`."""
        return self._ask("values", first=first, count=count).seconds

    def last(self, back: int) -> Results:
        """The results of the step ``back`` before the last, of those of the last call, as they
        were read when the clock stopped."""
        return dict(self._ask("last", back=back).value)

    def copying(self) -> float:
        """Seconds of reading what is like the last results, and needs no work."""
        return float(self._ask("copying").value)

    def parameters(self) -> Mapping[str, Any]:
        """Neutral ``parameters``, ``statistics`` and ``slots`` as they now are, and ``others``."""
        found: Mapping[str, Any] = self._ask("parameters").value
        return found

    def overhead(self, count: int) -> float:
        """Seconds of a step that are the harness's own."""
        return float(self._ask("overhead", count=count).value)

    def memory(self) -> dict[str, Any]:
        """Bytes at the peak: ``resident``, and ``device`` or None."""
        return dict(self._ask("memory").value)

    def peaks(self, dtype: str, sizes: Sequence[Size]) -> tuple[list[float], float]:
        """FLOP/s of products of some sizes, and bytes/s."""
        found = self._ask("peaks", dtype=dtype, sizes=[list(size) for size in sizes]).value
        return [float(p) for p in found["products"]], float(found["bandwidth"])

    def _ask(self, verb: str, **payload: Any) -> Outcome:
        return answered(self.worker, answers.BACKEND, verb, payload, self.timeout)
