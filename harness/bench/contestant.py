"""One contestant in one group: its worker as seen from the parent, and what came of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.bench.record import Record
from harness.bench.remote import StepRemote
from harness.bench.request import Entry, TimedCell
from harness.bench.workload import ROTATING, TimedCase
from harness.worker.remote import WorkerFault, not_offered
from harness.worker.worker import Worker

# Whether there is a speed; else whether the backend was right but not to be trusted, does not
# offer what was asked for, or could not be run.
Status = Literal["measured", "refused", "unsupported", "broken"]


class Refused(Exception):
    """A cell gets no speed; the message says why."""


class Unsupported(Exception):
    """The backend does not claim to have what was asked for; that is no fault of it."""


@dataclass
class TimedResult:
    """What came of a cell. ``seconds`` are those of one step, one number a round."""

    cell: TimedCell
    entry: Entry
    status: Status = "measured"
    reason: str = ""
    seconds: list[float] = field(default_factory=list)
    steps: int = 0
    record: Record = field(default_factory=Record)
    traceback: str = ""

    @property
    def measured(self) -> bool:
        """Whether there is a speed."""
        return self.status == "measured"


@dataclass
class Contestant:
    """An entry in one group: its worker, and what it has come to.

    ``next`` is the index of the next step, ``many`` the steps that go into one call, ``latency``
    the seconds that a step takes at best, by which others are counted. ``peaks`` outlives the
    group: what this contestant's processes have shown by (process, size).
    """

    entry: Entry
    worker: Worker
    case: TimedCase
    device: str
    timeout: float
    peaks: dict[Any, float] = field(default_factory=dict)
    result: TimedResult = field(init=False)
    many: int = 1
    next: int = 0
    latency: float = 0.0

    def __post_init__(self) -> None:
        cell = self.case.group.cell(self.entry.label)
        self.result = TimedResult(cell, self.entry)

    @property
    def record(self) -> Record:
        """What is known of the cell."""
        return self.result.record

    def attempt(self, part: Callable[[Contestant], None]) -> None:
        """Do a part of the measurement, unless the cell has lost its speed already."""
        if not self.result.measured:
            return
        try:
            part(self)
        except Unsupported as error:
            self._lose("unsupported", str(error))
        except Refused as error:
            self._lose("refused", str(error))
        except WorkerFault as fault:
            raised = fault.outcome.status == "error" and not fault.outcome.start_failed
            self._lose("refused" if raised else "broken", _fault_text(fault), fault.traceback)
        except Exception as error:
            words = "the harness could not measure this, which is a fault of its own: "
            trace = "".join(traceback.format_exception(error))
            self._lose("broken", f"{words}{type(error).__name__}: {error}", trace)

    @property
    def steps(self) -> StepRemote:
        """The pipeline in its worker."""
        return StepRemote(self.worker, self.timeout)

    def start(self) -> Mapping[str, Any]:
        """Start the worker if it is not running; what it says of itself.

        Raises:
            WorkerFault: it does not start.
            Unsupported: it does not offer the device or the dtype.
        """
        outcome = self.worker.start()
        if not outcome.ok:
            raise WorkerFault("start", outcome)
        hello: Mapping[str, Any] = self.worker.hello or {}
        lacking = not_offered(hello, self.device, self.case.dtype)
        if lacking and not self.entry.baseline:
            raise Unsupported(lacking)
        return hello

    def take(self, count: int) -> int:
        """The first index of ``count`` steps to come, which begin with the first batch."""
        first = self.next
        self.next += -(-count // ROTATING) * ROTATING
        return first

    def throughput(self, count: int) -> float:
        """Seconds of ``count`` steps with one wait at their end."""
        return self.steps.throughput(self.take(count), count)

    def latencies(self, count: int) -> list[float]:
        """Seconds of each of ``count`` steps, every one waited for."""
        return self.steps.latency(self.take(count), count)

    def steps_in(self, seconds: float, least: int = 3) -> int:
        """How many steps take so long; a multiple of those that go into one call."""
        count = max(least, round(seconds / max(self.latency, 1e-7)))
        return -(-count // self.many) * self.many

    def _lose(self, status: Status, reason: str, trace: str = "") -> None:
        self.result.status, self.result.reason = status, reason
        self.result.seconds, self.result.traceback = [], trace
        if trace:
            # What it has left behind must not be another group's.
            self.worker.close()


def _fault_text(fault: WorkerFault) -> str:
    outcome = fault.outcome
    what = "" if outcome.status == "error" else f"{outcome.status}: "
    return f"{what}{fault.verb}: {outcome.cause}"
