"""A backend that is timed in a benchmark: the worker process that runs it, and its measurements."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

from harness.arrays import Arrays
from harness.files.system import processor_seconds, read_waits
from harness.runtime.step_service import StepService
from harness.timing.request import Entry, Group, TimedCell
from harness.timing.workload import ROTATING, Batch, StepValues, TimedCase
from harness.worker.remote import (
    WorkerFault,
    call_or_raise,
    client,
    hello_of,
    missing_requirement,
    session_answer_types,
)
from harness.worker.worker import Outcome, Worker

# Fields of the record that a file of results stores elsewhere or omits.
OMITTED = frozenset({"hello", "settings", "latencies"})


@dataclass
class Record:
    """The measurements of a cell, in seconds, bytes and FLOP/s.

    A field stays None or empty if the measurement ended before the field was measured.
    """

    # The worker's description of itself, and the settings of its backend.
    hello: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    # A checksum of the spec and of all sizes.
    model: str = ""
    # ``candidates`` lists the tried paths (path, right, seconds, reason). The next fields are the
    # chosen path, what runs each layer on it (native or equations), and the number of steps per
    # call.
    candidates: Sequence[Mapping[str, object]] = ()
    path: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)
    many: int | None = None
    # Seconds to prepare the path, seconds of its first step, and the sum minus the median step.
    prepare: float | None = None
    first: float | None = None
    compile: float | None = None
    # The keys: steps, steady, medians.
    warm_up: Mapping[str, Any] = field(default_factory=dict)
    # ``latencies`` has the seconds of single steps, each waited for. The next three fields have
    # median, q1, q3, min and max: of the latencies, of steps in a row, and of the samples or
    # characters read per second (with the unit).
    latencies: list[float] = field(default_factory=list)
    latency: Mapping[str, float] = field(default_factory=dict)
    step: Mapping[str, float] = field(default_factory=dict)
    rate: Mapping[str, Any] = field(default_factory=dict)
    # ``flops`` counts the operations of a step as written, by kind. ``products`` counts the
    # operations of the matmuls that the step needs at least. The fields below are computed from
    # these counts. ``peak`` has large, own and own_size, and the backends that reached the peaks
    # (large_by, own_by).
    flops: Mapping[str, int] = field(default_factory=dict)
    products: int | None = None
    flops_per_second: float | None = None
    peak: Mapping[str, object] = field(default_factory=dict)
    share_of_peak: float | None = None
    share_of_own_peak: float | None = None
    bandwidth: Mapping[str, float] = field(default_factory=dict)
    share_of_bandwidth: float | None = None
    # The GPU during the rounds (see harness.worker.cards.summary): its UUID, and the bytes on it
    # used by this worker and by all other processes.
    card: Mapping[str, object] = field(default_factory=dict)
    # The keys: resident, device.
    memory: Mapping[str, Any] = field(default_factory=dict)
    # The keys: seconds, share.
    overhead: Mapping[str, float] = field(default_factory=dict)
    # The measurements of the proofs, one field per proof.
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
    # Reasons why the speed is unreliable although it passed all proofs.
    doubts: Sequence[str] = ()

    def plain(self) -> dict[str, object]:
        """Return a dictionary from field name to measurement, for a file of results. Empty fields
        are left out."""
        all_fields = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in OMITTED}
        return {name: value for name, value in all_fields.items() if value or value == 0.0}


# ``measured``: the cell has a speed. ``refused``: it failed a proof. ``unsupported``: the backend
# does not offer the cell. ``broken``: the backend could not be run.
Status = Literal["measured", "refused", "unsupported", "broken"]


class Refused(Exception):
    """Error: a cell gets no speed, e.g. because a proof failed; the message has the reason."""


class Unsupported(Exception):
    """Error: the backend says that it does not support a device, dtype, primitive or path."""


@dataclass
class TimedResult:
    """The result of a cell (a model on a backend): its speed, or the reason why it has none.

    ``seconds`` has the mean seconds per step of each round. ``steps`` is the number of timed steps
    in the last round.
    """

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


# The assumed seconds that a thread waits for a free core, if the system does not report them.
UNKNOWN_WAIT = 0.02


@dataclass(frozen=True)
class TimedRow:
    """The time of consecutive steps that run without a wait between them, measured by two clocks:
    in the worker and in the harness.

    ``wait`` is the mean number of seconds that the worker waited for a free CPU core, each time
    that it waited.
    """

    worker_seconds: float
    harness_seconds: float
    wait: float

    @property
    def lost(self) -> float:
        """The share of time that the worker's clock missed: the harness's seconds minus the
        worker's seconds, divided by the worker's seconds."""
        return (self.harness_seconds - self.worker_seconds) / max(self.worker_seconds, 1e-9)


@dataclass(frozen=True)
class TimedRound:
    """A timed round, with everything needed to run its steps again and to compare the results.

    - ``batches`` are the batches that the steps used in turn.
    - ``calls`` has a pair for each call of the worker: the index of its first step, and its number
      of steps.
    - ``clock`` has the time of the timed steps, by the clocks of the worker and of the harness.
    - ``reads`` maps the index of a step to its results, which were read when a clock stopped.
    - ``drawn`` is True if the harness chose this round at random, to run its steps again later.
      Then ``parameters`` has the values after the first ``until`` calls: parameters, statistics and
      slots. The harness read them twice, and ``reading`` has the seconds of each reading.
    """

    batches: Sequence[Batch]
    calls: Sequence[tuple[int, int]]
    clock: TimedRow
    reads: Mapping[int, Arrays]
    drawn: bool
    parameters: StepValues = field(default_factory=dict)
    until: int = 0
    reading: tuple[float, ...] = ()

    @property
    def seconds(self) -> float:
        """The seconds of the steps without a wait between them, by the worker's clock."""
        return self.clock.worker_seconds

    @property
    def steps(self) -> int:
        """The number of steps that the worker ran in all calls of the round."""
        return sum(count for _, count in self.calls)


@dataclass(frozen=True)
class Pace:
    """The times of a step in one round, measured in two ways: as one of many steps without a wait
    between them, and as a single step that the worker waits for. All values are seconds per step.

    ``row`` is the time of a step without a wait. A single step takes ``begun`` seconds to start,
    then ``done`` seconds until its results are read, and ``again`` seconds to read them a second
    time. ``longer`` is the longer of ``begun`` and ``done - again``. ``row_processor`` and
    ``alone_processor`` are the processor time of a step without a wait and of a single step.
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
        """The time of a step without a wait (``row``), divided by the longer part of a single step
        (``longer``)."""
        return self.row / max(self.longer, 1e-9)

    @property
    def processor_share(self) -> float:
        """The processor time of a step without a wait, divided by the processor time of a single
        step without the two readings of its results."""
        return self.row_processor / max(self.alone_processor - 2 * self.again, 1e-9)


@dataclass(frozen=True)
class FeedTime:
    """The wall time and the processor time, in seconds, to feed batches to a worker.

    At first, the time includes the steps that run right after the feeding; :meth:`beyond` subtracts
    them.
    """

    wall: float
    processor: float

    def beyond(self, steps: int, wall: float, processor: float) -> FeedTime:
        """Return the time of the feeding alone: subtract ``steps`` steps, each of which takes
        ``wall`` seconds and ``processor`` seconds of processor time."""
        return FeedTime(self.wall - steps * wall, self.processor - steps * processor)


@dataclass
class Contestant:
    """A backend that is timed on one model and its sizes (a group): its worker and its
    measurements.

    - ``next`` is the index of the next step, and ``many`` the number of steps per call.
    - ``latency`` is the estimated time of a step. It decides how many steps a round has.
    - ``peaks`` maps a process id and the size of a matmul, e.g. ``(123, (64, 64, 8))``, to the peak
      FLOP/s. All groups share it.
    - ``timed_rounds``, ``paces`` and ``feed_times`` have one entry per round: the steps that were
      timed, the times per step, and the time to feed the batches.
    - ``clocks`` has the times of all steps that ran without a wait between them, by the clocks of
      the worker and of the harness.
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
    timed_rounds: list[TimedRound] = field(default_factory=list)
    paces: list[Pace] = field(default_factory=list)
    feed_times: list[FeedTime] = field(default_factory=list)
    clocks: list[TimedRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        cell = self.case.group.cell(self.entry.label)
        self.result = TimedResult(cell, self.entry)
        self.record.model = self.case.model

    @property
    def record(self) -> Record:
        """The measurements of the cell."""
        return self.result.record

    @property
    def carries(self) -> bool:
        """True if a step passes values on to the next step. Steps do so in training (parameters)
        and in models with state."""
        return self.case.group.mode == "train" or bool(self.case.program.state)

    def attempt(self, part: Callable[[Contestant], None]) -> None:
        """Call ``part``, e.g. a proof, with this backend, unless an earlier part of the measurement
        failed. If ``part`` raises an error, the cell gets no speed, and its result has the reason.
        """
        if not self.result.measured:
            return
        try:
            part(self)
        except Unsupported as error:
            self._lose_speed("unsupported", str(error))
        except Refused as error:
            self._lose_speed("refused", str(error))
        except WorkerFault as fault:
            raised = fault.outcome.status == "error" and not fault.outcome.start_failed
            self._lose_speed("refused" if raised else "broken", fault_text(fault), fault.traceback)
        except Exception as error:
            words = "error in the harness itself, not in the backend: "
            trace = "".join(traceback.format_exception(error))
            self._lose_speed("broken", f"{words}{type(error).__name__}: {error}", trace)

    @cached_property  # cached, so that no timed call builds it
    def steps(self) -> StepService:
        """The client that runs steps in the worker; its methods are the calls of
        :class:`StepService`.

        A call raises WorkerFault if it fails or times out.
        """
        return client(StepService, lambda verb, **payload: self._ask(verb, payload).value)

    def seconds_of_values(self, first: int, count: int) -> float:
        """Return the seconds until the worker has run ``count`` steps, starting with step
        ``first``, and has sent their results."""
        return self._ask("values", {"first": first, "count": count}).seconds

    def _ask(self, verb: str, payload: Mapping[str, object]) -> Outcome:
        return call_or_raise(self.worker, session_answer_types(), verb, payload, self.timeout)

    def start(self) -> Mapping[str, Any]:
        """Start the worker if it is not running. Return its greeting, i.e. its description of
        itself, e.g. with versions and devices.

        Raises:
            WorkerFault: the worker does not start.
            Unsupported: the backend does not offer the device, the dtype or a primitive.
        """
        hello = hello_of(self.worker)
        programs = (*self.case.programs.values(), self.case.rule)
        lacking = missing_requirement(hello, self.device, self.case.dtype, programs)
        if lacking and not self.entry.baseline:
            raise Unsupported(lacking)
        return hello

    def reserve_steps(self, count: int) -> int:
        """Reserve the indices of the next ``count`` steps, and return the first of them.

        The first index is a multiple of :data:`ROTATING` (the number of batches), so the first step
        uses the first batch.
        """
        first = self.next
        self.next += -(-count // ROTATING) * ROTATING
        return first

    def throughput(self, count: int) -> float:
        """Run ``count`` steps without a wait between them, wait once at the end, and return the
        seconds of all steps together."""
        return self.time_row(self.reserve_steps(count), count)

    def time_row(self, first: int, count: int) -> float:
        """Time ``count`` steps without a wait between them, with the worker's clock and with the
        harness's clock. Store both times in ``clocks``, and return the worker's seconds.

        ``first`` is the index of the first step.
        """
        before, started = self._read_waits(), time.perf_counter()
        told = self.steps.throughput(first, count)
        passed = time.perf_counter() - started
        seconds, times = (now - then for now, then in zip(self._read_waits(), before, strict=True))
        self.clocks.append(TimedRow(told, passed, seconds / times if times else UNKNOWN_WAIT))
        return told

    def _read_waits(self) -> tuple[float, float]:
        """Return the seconds that the worker has waited for a free CPU core since it started, and
        the number of these waits; (0, 0) if unknown."""
        return read_waits(self.worker.pid or 0)

    def processor(self) -> float:
        """Return the processor seconds that all threads of the worker have used since it
        started."""
        return processor_seconds(self.worker.pid) if self.worker.pid else 0.0

    def latencies(self, count: int) -> list[float]:
        """Return the seconds of each of ``count`` single steps: the worker waits for the end of
        each step."""
        return self.steps.latency(self.reserve_steps(count), count)

    def steps_in(self, seconds: float, least: int = 3) -> int:
        """Return how many steps fit into ``seconds``, but at least ``least``. The number is rounded
        up to a multiple of ``many`` (the number of steps per call)."""
        count = max(least, round(seconds / max(self.latency, 1e-7)))
        return -(-count // self.many) * self.many

    def _lose_speed(self, status: Status, reason: str, trace: str = "") -> None:
        self.result.status, self.result.reason = status, reason
        self.result.seconds, self.result.traceback = [], trace
        if trace:
            # Close the worker, so that a later group starts with a new process.
            self.worker.close()


def fault_text(fault: WorkerFault) -> str:
    """Describe a failed call to a worker: the name of the call, and the error."""
    outcome = fault.outcome
    what = "" if outcome.status == "error" else f"{outcome.status}: "
    return f"{what}{fault.verb}: {outcome.cause}"


class BenchEvents:
    """Callbacks during a run of ``bench``. Override those that you need; the others do nothing."""

    def planned(self, cells: int) -> None:
        """Receive the number of cells, before the first cell starts."""

    def expecting(self, group: Group) -> None:
        """Receive the model (group) whose expected results the oracle computes next."""

    def doing(self, result: TimedResult, what: str) -> None:
        """Receive the cell that is measured, and the part of the measurement that begins, e.g.
        "warming up"."""

    def trying(self, result: TimedResult, path: str) -> None:
        """Receive the path that is tried next, in the search for the fastest path."""

    def ended(self, result: TimedResult) -> None:
        """Receive the result of a cell."""
