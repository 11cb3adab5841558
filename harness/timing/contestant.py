"""A contestant: the worker of one backend in one group, and the record of its cell."""

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

# Fields that a file of results stores elsewhere, or not at all.
NOT_TOLD = frozenset({"hello", "settings", "latencies"})


@dataclass
class Record:
    """The measurements of a cell; None or empty if not reached. In seconds, bytes and FLOP/s."""

    # The worker's description of itself, and the flags of its backend.
    hello: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    # A checksum of the spec's meaning and of all sizes.
    model: str = ""
    # The paths that were tried (path, right, seconds, reason), the chosen path, what runs each
    # layer on it, and the number of steps per call.
    candidates: Sequence[Mapping[str, object]] = ()
    path: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)
    many: int | None = None
    # Seconds to prepare the path, of its first step, and of both minus one usual step.
    prepare: float | None = None
    first: float | None = None
    compile: float | None = None
    # steps, steady, medians
    warm_up: Mapping[str, Any] = field(default_factory=dict)
    # Seconds of single steps, each waited for. Then spreads (median, q1, q3, min, max): of these,
    # of steps in a row, and of what is read per second, with its unit.
    latencies: list[float] = field(default_factory=list)
    latency: Mapping[str, float] = field(default_factory=dict)
    step: Mapping[str, float] = field(default_factory=dict)
    rate: Mapping[str, Any] = field(default_factory=dict)
    # Operations of a step as written, by kind; operations of the matmuls that it needs at least;
    # and the rates computed from them. ``peak``: large, own, own_size, and the backends that
    # reached them (large_by, own_by).
    flops: Mapping[str, int] = field(default_factory=dict)
    products: int | None = None
    flops_per_second: float | None = None
    peak: Mapping[str, object] = field(default_factory=dict)
    share_of_peak: float | None = None
    share_of_own_peak: float | None = None
    bandwidth: Mapping[str, float] = field(default_factory=dict)
    share_of_bandwidth: float | None = None
    # The GPU during the rounds (see harness.worker.cards.summary), its UUID, and the bytes on it of
    # this worker and of all others.
    card: Mapping[str, object] = field(default_factory=dict)
    # resident, device
    memory: Mapping[str, Any] = field(default_factory=dict)
    # seconds, share
    overhead: Mapping[str, float] = field(default_factory=dict)
    # The numbers of the proofs.
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
    # Reasons why the figure is unreliable although it was proved.
    doubts: Sequence[str] = ()

    def told(self) -> dict[str, object]:
        """Return the fields that were reached, for a file of results."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in NOT_TOLD}
        return {name: value for name, value in found.items() if value or value == 0.0}


# The cell has a speed; or it failed a proof, or the backend does not offer what was asked for, or
# could not be run.
Status = Literal["measured", "refused", "unsupported", "broken"]


class Refused(Exception):
    """Refusal of a speed; the message says why."""


class Unsupported(Exception):
    """The backend does not claim to offer what was asked for, which is not a fault."""


@dataclass
class TimedResult:
    """The result of a cell. ``seconds`` has the seconds of one step, one number per round."""

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
        """True if the cell has a speed."""
        return self.status == "measured"


# The assumed seconds of one wait for a processor, if the system does not report it.
UNKNOWN = 0.02


@dataclass(frozen=True)
class TimedRow:
    """Seconds of steps in a row: ``told`` by the worker's clock, ``passed`` by ours.

    ``wait`` is the worker's mean wait for a processor in the meantime.
    """

    told: float
    passed: float
    wait: float

    @property
    def lost(self) -> float:
        """The share of the worker's time that only the clock of the harness shows."""
        return (self.passed - self.told) / max(self.told, 1e-9)


@dataclass(frozen=True)
class Played:
    """A timed round, with everything needed to repeat it.

    ``calls`` are the first index and the number of steps of each call, from the start. ``clock``
    has the time of the row by both clocks. ``reads`` has the results of some steps by index, read
    when a clock stopped. If requested, ``parameters`` has all values after the first ``until``
    calls, and ``reading`` the seconds of reading them, twice. ``drawn`` marks a round to be
    repeated as a whole.
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
        """The seconds of the row, by the worker's clock."""
        return self.clock.told

    @property
    def steps(self) -> int:
        """The number of steps of all calls."""
        return sum(count for _, count in self.calls)


@dataclass(frozen=True)
class Pace:
    """Seconds of a step in one round.

    ``row`` is for a step in a row. A step alone takes ``begun`` to start, then ``done`` until its
    results are there, and ``again`` to read them once more; ``longer`` is the longer of the first
    two without reading. ``row_processor`` and ``alone_processor`` are processor time.
    """

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
        """The processors' time in a row over the time alone without its two readings of results."""
        return self.row_processor / max(self.alone_processor - 2 * self.again, 1e-9)


@dataclass(frozen=True)
class Handed:
    """Wall and processor seconds from feeding batches until some steps end, minus those steps."""

    wall: float
    processor: float

    def beyond(self, steps: int, wall: float, processor: float) -> Handed:
        """Subtract the time of ``steps`` steps, given the seconds of one."""
        return Handed(self.wall - steps * wall, self.processor - steps * processor)


@dataclass
class Contestant:
    """An entry in one group: its worker and its measurements.

    ``next`` is the index of the next step, and ``many`` the number of steps per call. ``latency``
    is the best time of a step, which decides how many steps fit a time. ``peaks`` outlives the
    group: the peaks by (process, size). ``played``, ``paces`` and ``handed`` have an entry per
    round: what was timed, its paces, and the time to feed its batches. ``clocks`` has all rows.
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
        """The record of the cell."""
        return self.result.record

    @property
    def carries(self) -> bool:
        """True if values go from step to step: in training, and with state."""
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

    @cached_property  # cached, so that no timed call builds it
    def steps(self) -> StepService:
        """The steps in the worker; a call raises WorkerFault if it fails or exceeds the timeout."""
        return client(StepService, lambda verb, **payload: self._ask(verb, payload).value)

    def seconds_of_values(self, first: int, count: int) -> float:
        """Return the seconds that the worker took to answer with the results of some steps."""
        return self._ask("values", {"first": first, "count": count}).seconds

    def _ask(self, verb: str, payload: Mapping[str, object]) -> Outcome:
        return answered(self.worker, session_forms(), verb, payload, self.timeout)

    def start(self) -> Mapping[str, Any]:
        """Start the worker if it is not running, and return its description of itself.

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
        """Reserve ``count`` steps, starting with the first batch; return the first index."""
        first = self.next
        self.next += -(-count // ROTATING) * ROTATING
        return first

    def throughput(self, count: int) -> float:
        """Return the seconds of ``count`` steps with one wait at the end."""
        return self.row(self.take(count), count)

    def row(self, first: int, count: int) -> float:
        """Time ``count`` steps in a row from ``first``, by the worker's clock and by our own."""
        before, started = self._waited(), time.perf_counter()
        told = self.steps.throughput(first, count)
        passed = time.perf_counter() - started
        seconds, times = (now - then for now, then in zip(self._waited(), before, strict=True))
        self.clocks.append(TimedRow(told, passed, seconds / times if times else UNKNOWN))
        return told

    def _waited(self) -> tuple[float, float]:
        """Return how long and how often the answering thread waited for a processor, or zeros."""
        pid = self.worker.pid
        try:
            _, nanoseconds, times = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()
        except OSError:
            return 0.0, 0.0
        return int(nanoseconds) / 1e9, float(times)

    def processor(self) -> float:
        """Return the processor seconds of all threads of the worker, from the operating system."""
        pid = self.worker.pid
        # The number of another process's clock, as clock_getcpuclockid(3) makes it on Linux.
        return time.clock_gettime((~pid << 3) | 2) if pid else 0.0

    def latencies(self, count: int) -> list[float]:
        """Return the seconds of each of ``count`` steps, each waited for."""
        return self.steps.latency(self.take(count), count)

    def steps_in(self, seconds: float, least: int = 3) -> int:
        """Return how many steps take ``seconds``, rounded up to whole calls."""
        count = max(least, round(seconds / max(self.latency, 1e-7)))
        return -(-count // self.many) * self.many

    def _lose(self, status: Status, reason: str, trace: str = "") -> None:
        self.result.status, self.result.reason = status, reason
        self.result.seconds, self.result.traceback = [], trace
        if trace:
            # A later group must not inherit the state of this process.
            self.worker.close()


def fault_text(fault: WorkerFault) -> str:
    """Return which call failed and how."""
    outcome = fault.outcome
    what = "" if outcome.status == "error" else f"{outcome.status}: "
    return f"{what}{fault.verb}: {outcome.cause}"


class BenchEvents:
    """Events of a run while it goes on; override the ones of interest."""

    def planned(self, cells: int) -> None:
        """Receive the number of cells, before the first."""

    def expecting(self, group: Group) -> None:
        """Receive the group whose results the oracle computes now."""

    def doing(self, result: TimedResult, what: str) -> None:
        """Receive the part of a cell's measurement that begins."""

    def trying(self, result: TimedResult, path: str) -> None:
        """Receive the path that is tried, to find the fastest."""

    def ended(self, result: TimedResult) -> None:
        """Receive the result of a cell."""
