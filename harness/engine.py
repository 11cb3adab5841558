"""Runs cells: one worker process a backend, cases shared, records appended as cells start and end.

The parent owns the oracle, the comparison and the records; it never imports a framework.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.case import Case
from harness.cells import Cell, CellResult, CellRun, finding_record
from harness.differences import Differences, known_differences
from harness.errors import UsageError, did_you_mean
from harness.findings import Finding
from harness.plugins import available
from harness.processes import kill_all
from harness.records import RecordWriter, head
from harness.spec.lower import FREE_SIZES, Spec, load_spec
from harness.supervisor import Launch, Worker

# Small, and all different: a wrong axis cannot fit. Time exceeds what unrolled models need.
SMALL_SIZES: Mapping[str, int] = {"vocab": 11, "characters": 10, "factors": 5, "hidden": 7}
SMALL_BATCH, SMALL_TIME = 3, 4
# At the spec's own sizes a small batch is enough, and keeps the material off the kinks.
OWN_BATCH = 4


@dataclass(frozen=True)
class Request:
    """What to check. Empty ``specs`` mean all of Lesson 6, empty ``backends`` all installed."""

    specs: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("float64", "float32")
    paths: tuple[str, ...] = ("native",)
    device: str = "cpu"
    folders: tuple[Path, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    pythons: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    timeout: float = 120.0
    memory_limit: int | None = None
    checks: tuple[str, ...] = ("*",)
    records: Path | None = None
    seed: int = 0
    jobs: int = 0
    handler: str | None = None


class Events:
    """What a run tells while it goes; override what is of interest. Called from several threads,
    one call at a time."""

    def planned(self, cells: Sequence[Cell]) -> None:
        """All cells, before the first."""

    def began(self, cell: Cell) -> None:
        """A cell starts."""

    def found(self, cell: Cell, finding: Finding) -> None:
        """A check of it is done."""

    def ended(self, result: CellResult) -> None:
        """A cell is done."""


@dataclass
class Report:
    """All results, in the order of the plan."""

    results: list[CellResult]

    @property
    def exit_code(self) -> int:
        """0: all agree, or differ as known; 1: something differs; 3: a backend could not be run."""
        verdicts = {r.verdict for r in self.results}
        if any(r.could_not_run for r in self.results) or verdicts & {
            "crashed",
            "timeout",
            "out-of-memory",
        }:
            return 3
        if verdicts <= {"agree", "known-difference", "unsupported"}:
            return 0 if "agree" in verdicts or "known-difference" in verdicts else 3
        return 1


class Engine:
    """One run of a request. Use as a context manager, so that no worker outlives it."""

    def __init__(self, request: Request, events: Events | None = None) -> None:
        self.request = request
        self.events = events or Events()
        self.specs = [self._load(name) for name in request.specs or lesson6()]
        self.backends = choose_backends(request.backends)
        self.differences: Differences = known_differences(request.folders)
        self.workers = {name: Worker(self._launch(name)) for name in self.backends}
        self._cases: dict[tuple[str, bool], Case] = {}
        self._case_locks = {spec.name: threading.Lock() for spec in self.specs}
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        self._stopping.set()
        for worker in self.workers.values():
            worker.close()

    def cells(self) -> list[Cell]:
        """The plan: every spec on every backend, dtype by dtype and path by path."""
        request = self.request
        return [
            Cell(spec.name, backend, request.device, dtype, path)
            for backend in self.backends
            for spec in self.specs
            for dtype in request.dtypes
            for path in request.paths
        ]

    def run(self, arguments: Sequence[str] = ()) -> Report:
        """Run every cell. Backends run beside each other, as many as there are cores."""
        plan = self.cells()
        self.events.planned(plan)
        writer = RecordWriter(self.request.records) if self.request.records else None
        results: dict[Cell, CellResult] = {}
        jobs = self.request.jobs or len(os.sched_getaffinity(0))
        try:
            if writer:
                writer.append(head(arguments, self._hellos(), self.request.environment))
            with ThreadPoolExecutor(jobs) as pool:
                futures = [
                    pool.submit(self._run_backend, name, plan, results, writer)
                    for name in slowest_first(self.backends)
                ]
                try:
                    for future in futures:
                        future.result()
                except BaseException:
                    # Ctrl-C too: the calls under way must end now, or the pool waits for them.
                    self._stopping.set()
                    kill_all()
                    raise
        finally:
            self.close()
            if writer:
                writer.close()
        return Report([results[cell] for cell in plan if cell in results])

    def _run_backend(
        self,
        backend: str,
        plan: Iterable[Cell],
        results: dict[Cell, CellResult],
        writer: RecordWriter | None,
    ) -> None:
        specs = {spec.name: spec for spec in self.specs}
        for cell in plan:
            if cell.backend != backend or self._stopping.is_set():
                continue
            self._tell(writer, {"kind": "begin", **cell.record()}, self.events.began, cell)
            result = self._run_cell(cell, specs[cell.spec])
            with self._lock:
                results[cell] = result
            if writer:
                for finding in result.findings:
                    writer.append(finding_record(result, finding))
            end = {"kind": "end", **cell.record(), "verdict": result.verdict}
            end["seconds"] = round(result.seconds, 6)
            self._tell(writer, end, self.events.ended, result)
        self.workers[backend].close()

    def _tell(
        self,
        writer: RecordWriter | None,
        record: Mapping[str, Any],
        event: Callable[[Any], None],
        what: Any,
    ) -> None:
        if writer:
            writer.append(record)
        with self._lock:
            event(what)

    def _run_cell(self, cell: Cell, spec: Spec) -> CellResult:
        def tell(finding: Finding) -> None:
            with self._lock:
                self.events.found(cell, finding)

        run = CellRun(
            cell,
            self.case(spec, own=False),
            self.case(spec, own=True),
            self.workers[cell.backend],
            self.differences,
            self.request.timeout,
            self.request.checks,
        )
        return run.run(tell)

    def case(self, spec: Spec, *, own: bool) -> Case:
        """A spec's case, small or at its own sizes; made once."""
        key = (spec.name, own)
        with self._case_locks[spec.name]:
            if key not in self._cases:
                self._cases[key] = make_case(spec, self.request, own=own)
            return self._cases[key]

    def _load(self, name: str) -> Spec:
        spec = load_spec(name, self.request.folders)
        for size in self.request.sizes:
            if size not in (*spec.model.sizes, *FREE_SIZES):
                known = (*spec.model.sizes, *FREE_SIZES)
                raise UsageError(
                    f"{spec.name} has no size {size!r}{did_you_mean(size, known)} "
                    f"(known: {', '.join(known)})"
                )
        return spec

    def _launch(self, backend: str) -> Launch:
        return Launch(
            backend,
            python=self.request.pythons.get(backend, sys.executable),
            environment=self.request.environment.get(backend, {}),
            memory_limit=self.request.memory_limit,
            handler=self.request.handler,
        )

    def _hellos(self) -> dict[str, Any]:
        origins = available()
        return {
            name: f"{origins[name].distribution} {origins[name].version}"
            for name in self.backends
            if name in origins
        }


def make_case(spec: Spec, request: Request, *, own: bool) -> Case:
    """The case of a spec: at small sizes that all differ, or at the spec's own."""
    given = dict(request.sizes)
    if own:
        training, data = spec.model.training, spec.model.data
        time = data.windows.length if data else 8
        batch = min(training.batch, OWN_BATCH) if training else OWN_BATCH
        sizes: Mapping[str, int] = given
    else:
        batch, time = SMALL_BATCH, SMALL_TIME
        sizes = {**small_sizes(spec), **given}
    return Case(spec, sizes, given.get("batch", batch), given.get("time", time), request.seed)


def small_sizes(spec: Spec) -> dict[str, int]:
    """A small number for every size of a spec, all different, never above the spec's own."""
    taken = {SMALL_BATCH, SMALL_TIME, *SMALL_SIZES.values()}
    sizes = {}
    for name, own in spec.model.sizes.items():
        small = SMALL_SIZES.get(name)
        if small is None:
            small = next(n for n in range(5, 10_000) if n not in taken)
            taken.add(small)
        sizes[name] = min(small, own)
    return sizes


def lesson6() -> tuple[str, ...]:
    """The names of the Lesson 6 models, in the order of the notebook."""
    return tuple(
        f"lesson6/{name}"
        for name in (
            "three_char",
            "first_rnn",
            "simple_rnn",
            "sequence_unrolled",
            "sequence_rnn",
            "sequence_onehot",
            "stateful_lstm",
            "theano_rnn",
            "pure_python_rnn",
            "keras_gru",
            "theano_gru",
            "theano_gru_combined",
        )
    )


def choose_backends(names: Sequence[str]) -> tuple[str, ...]:
    """The named backends, or all that are installed; :class:`UsageError` for an unknown name."""
    known = available()
    for name in names:
        if name not in known:
            raise UsageError(
                f"unknown backend {name!r}{did_you_mean(name, known)} "
                f"(installed: {', '.join(known)})"
            )
    return tuple(dict.fromkeys(names)) or tuple(known)


def slowest_first(names: Sequence[str]) -> list[str]:
    """Backends that take longest to start go first, so that they do not run alone at the end."""
    return sorted(names, key=lambda n: (n == "numpy", "keras" not in n and "jax" not in n))
