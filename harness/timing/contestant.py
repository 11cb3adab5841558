"""One contestant in one group: its worker as seen from the parent, and what its cell came to."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from harness.arrays import Arrays
from harness.runtime.step_service import StepService
from harness.timing.request import Entry, Group, TimedCell
from harness.timing.workload import ROTATING, Batch, Left, TimedCase
from harness.worker.remote import WorkerFault, answered, client, not_offered, session_forms
from harness.worker.worker import Outcome, Worker

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
    candidates: Sequence[Mapping[str, object]] = ()
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
    peak: Mapping[str, object] = field(default_factory=dict)
    share_of_peak: float | None = None
    share_of_own_peak: float | None = None
    bandwidth: Mapping[str, float] = field(default_factory=dict)
    share_of_bandwidth: float | None = None
    # What the card did during the rounds (see harness.worker.cards.summary), which one it was, and
    # the bytes on it of this worker and of all others.
    card: Mapping[str, object] = field(default_factory=dict)
    # resident, device
    memory: Mapping[str, Any] = field(default_factory=dict)
    # seconds, share
    overhead: Mapping[str, float] = field(default_factory=dict)
    # What the proofs have found.
    values: Mapping[str, Any] = field(default_factory=dict)
    waits: Mapping[str, object] = field(default_factory=dict)
    clock: Mapping[str, float] = field(default_factory=dict)
    pace: Mapping[str, float] = field(default_factory=dict)
    unseen: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    handing_over: Mapping[str, float] = field(default_factory=dict)
    timed_way: Mapping[str, object] = field(default_factory=dict)
    rounds_again: Mapping[str, object] = field(default_factory=dict)
    later_step: Mapping[str, object] = field(default_factory=dict)
    hardware: Mapping[str, float] = field(default_factory=dict)
    # Why the figure is worthless all the same, in words.
    doubts: Sequence[str] = ()

    def told(self) -> dict[str, object]:
        """The fields that were reached, for a file of results."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in NOT_TOLD}
        return {name: value for name, value in found.items() if value or value == 0.0}


# Whether there is a speed; else whether the backend was right but not to be trusted, does not
# offer what was asked for, or could not be run.
Status = Literal["measured", "refused", "unsupported", "broken"]


class Refused(Exception):
    """A cell gets no speed; the message says why."""


class Unsupported(Exception):
    """The backend does not claim to have what was asked for; that is not a fault of it."""


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


# Seconds that a worker may wait for a processor where the system does not tell.
UNKNOWN = 0.02


@dataclass(frozen=True)
class TimedRow:
    """Seconds of steps in a row, by the worker's clock (``told``) and by our own (``passed``); and
    those for which the worker waited for a processor in the meantime, each time on average."""

    told: float
    passed: float
    wait: float

    @property
    def lost(self) -> float:
        """The share of the worker's time that only our own clock has seen."""
        return (self.passed - self.told) / max(self.told, 1e-9)


@dataclass(frozen=True)
class Played:
    """What was timed, as far as it takes to make it again.

    ``calls`` are the first index and the number of steps of each, from the start; ``clock`` the
    row by both clocks. ``reads`` are results of steps by their
    index, as they were when a clock stopped. ``parameters`` are all that was left by the first
    ``until`` calls, where it was asked for, and ``reading`` the seconds that this took, twice.
    ``drawn`` is whether all is made again.
    """

    batches: Sequence[Batch]
    calls: Sequence[tuple[int, int]]
    clock: TimedRow
    reads: Mapping[int, Arrays]
    drawn: bool
    parameters: Left = field(default_factory=dict)
    until: int = 0
    reading: tuple[float, ...] = ()

    @property
    def seconds(self) -> float:
        """Those of the row."""
        return self.clock.told

    @property
    def steps(self) -> int:
        """How many were made."""
        return sum(count for _, count in self.calls)


@dataclass(frozen=True)
class Pace:
    """Seconds of a step, in one round: in a row; alone, until it has begun, until it is done, for
    reading its results once more, and of the longer of the first two parts without reading; and
    those of processors, in a row and alone."""

    row: float
    begun: float
    done: float
    again: float
    longer: float
    row_processor: float
    alone_processor: float

    @property
    def share(self) -> float:
        """The time in a row over the longer part of the time alone."""
        return self.row / max(self.longer, 1e-9)

    @property
    def processor_share(self) -> float:
        """The processors' time in a row over that alone, where results are read twice."""
        return self.row_processor / max(self.alone_processor - 2 * self.again, 1e-9)


@dataclass(frozen=True)
class Handed:
    """Seconds beyond those of steps, from the moment at which batches are handed over until some
    steps on them are done: of the wall, and of the worker's processors."""

    wall: float
    processor: float

    def beyond(self, steps: int, wall: float, processor: float) -> Handed:
        """What is left without so many steps, by the seconds of one."""
        return Handed(self.wall - steps * wall, self.processor - steps * processor)


@dataclass
class Contestant:
    """An entry in one group: its worker, and what it has come to.

    ``next`` is the index of the next step, ``many`` the steps that go into one call, ``latency``
    the seconds that a step takes at best, by which others are counted. ``peaks`` outlives the
    group: what this contestant's processes have shown by (process, size). Of the rounds are kept
    what was ``played`` and at which ``paces``, what it took to hand the batches over (``handed``);
    and of all rows the seconds by both clocks (``clocks``).
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
    played: list[Played] = field(default_factory=list)
    paces: list[Pace] = field(default_factory=list)
    handed: list[Handed] = field(default_factory=list)
    clocks: list[TimedRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        cell = self.case.group.cell(self.entry.label)
        self.result = TimedResult(cell, self.entry)
        self.record.model = self.case.model

    @property
    def record(self) -> Record:
        """What is known of the cell."""
        return self.result.record

    @property
    def carries(self) -> bool:
        """Whether anything goes from step to step."""
        return self.case.group.mode == "train" or bool(self.case.program.state)

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
            self._lose("refused" if raised else "broken", fault_text(fault), fault.traceback)
        except Exception as error:
            words = "the harness could not measure this, which is a fault of its own: "
            trace = "".join(traceback.format_exception(error))
            self._lose("broken", f"{words}{type(error).__name__}: {error}", trace)

    @cached_property  # no call that is timed makes it anew
    def steps(self) -> StepService:
        """The pipeline in its worker. Every call raises WorkerFault if it fails, or if it takes
        longer than the timeout."""
        return client(StepService, lambda verb, **payload: self._ask(verb, payload).value)

    def seconds_of_values(self, first: int, count: int) -> float:
        """Return the seconds that the worker took to answer with the results of some steps."""
        return self._ask("values", {"first": first, "count": count}).seconds

    def _ask(self, verb: str, payload: Mapping[str, object]) -> Outcome:
        return answered(self.worker, session_forms(), verb, payload, self.timeout)

    def start(self) -> Mapping[str, Any]:
        """Start the worker if it is not running; what it says of itself.

        Raises:
            WorkerFault: it does not start.
            Unsupported: it does not offer the device, the dtype or a primitive.
        """
        outcome = self.worker.start()
        if not outcome.ok:
            raise WorkerFault("start", outcome)
        hello: Mapping[str, Any] = self.worker.hello or {}
        programs = (*self.case.programs.values(), self.case.rule)
        lacking = not_offered(hello, self.device, self.case.dtype, programs)
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
        return self.row(self.take(count), count)

    def row(self, first: int, count: int) -> float:
        """:meth:`throughput` from a step on, by the worker's clock, and beside it by our own."""
        before, started = self._waited(), time.perf_counter()
        told = self.steps.throughput(first, count)
        passed = time.perf_counter() - started
        seconds, times = (now - then for now, then in zip(self._waited(), before, strict=True))
        self.clocks.append(TimedRow(told, passed, seconds / times if times else UNKNOWN))
        return told

    def _waited(self) -> tuple[float, float]:
        """Return the seconds that the thread which answers has waited for a processor, and how
        often, by the system's word; zeros where it has none."""
        pid = self.worker.pid
        try:
            _, nanoseconds, times = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()
        except OSError:
            return 0.0, 0.0
        return int(nanoseconds) / 1e9, float(times)

    def processor(self) -> float:
        """Seconds that all threads of the worker have had of processors, by the system's word."""
        pid = self.worker.pid
        # The number of another process's clock, as clock_getcpuclockid(3) makes it on Linux.
        return time.clock_gettime((~pid << 3) | 2) if pid else 0.0

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


def fault_text(fault: WorkerFault) -> str:
    """How a call ended that brought no answer, and which it was."""
    outcome = fault.outcome
    what = "" if outcome.status == "error" else f"{outcome.status}: "
    return f"{what}{fault.verb}: {outcome.cause}"


class BenchEvents:
    """What a run tells while it goes; override what is of interest."""

    def planned(self, cells: int) -> None:
        """The number of cells, before the first."""

    def expecting(self, group: Group) -> None:
        """The oracle computes what a group's results must be."""

    def doing(self, result: TimedResult, what: str) -> None:
        """A part of a cell's measurement begins."""

    def trying(self, result: TimedResult, path: str) -> None:
        """A path is tried, to find the fastest."""

    def ended(self, result: TimedResult) -> None:
        """A cell is done."""
