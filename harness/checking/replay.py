"""The commands ``replay`` and ``reduce``. ``replay`` runs a reproducer again on any backend.
``reduce`` makes a reproducer smaller while it still fails."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.checking.options import ReduceOptions, ReplayOptions
from harness.checking.reduction import ALONG, Segments, resize
from harness.checking.reproducer import Failure, Reproducer, load, write
from harness.command.outcome import CommandResult
from harness.command.ranges import CELL_SECONDS
from harness.environments.columns import choose_process
from harness.errors import EXIT_FAILED, EXIT_PASSED, CouldNotRun, HarnessError, UsageError
from harness.files.user_file import displayed
from harness.language.axes import FREE_SIZES
from harness.oracle.time_limit import OracleFault, TimeLimit, with_time_limit
from harness.oracle.tolerance import Deviation, worst
from harness.output.printing import console
from harness.output.progress import Progress
from harness.output.shell import quoted
from harness.program.ir import Program
from harness.results.cell import Cell, CellResult
from harness.results.findings import Finding
from harness.worker.launch import Launch
from harness.worker.remote import Remote, WorkerFault, check_offered, nearest_device
from harness.worker.worker import Worker

# The search reduces sizes and removes nodes while the pass still fails.

# A function that runs a pass and returns whether it still fails.
Differs = Callable[[Failure], bool]
# The number of rounds over all sizes and nodes. One reduction can make further reductions possible.
ROUNDS = 4


@dataclass
class Search:
    """A search for a smaller pass that still fails, with a time limit in ``seconds``.

    ``differs`` runs a candidate (a smaller pass) and returns whether it still fails. ``tried``
    counts the candidates. Before each candidate runs, ``show`` is called with the count and the
    candidate.
    """

    differs: Differs
    seconds: float
    show: Callable[[int, Failure], None] = lambda tried, candidate: None
    tried: int = 0
    _end: float = field(init=False)

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.seconds

    @property
    def over(self) -> bool:
        """True if the time limit is reached. The search then ends with the smallest failing pass so
        far."""
        return time.monotonic() > self._end

    def smallest(self, failure: Failure) -> Failure:
        """Return the smallest failing pass that the search finds, starting from ``failure``."""
        for _ in range(ROUNDS):
            before = measure(failure)
            failure = self._reduce_nodes(self._reduce_sizes(failure))
            if measure(failure) == before or self.over:
                break
        return failure

    def _reduce_sizes(self, failure: Failure) -> Failure:
        """Reduce the sizes of the failing pass one by one: batch and time first, then the other
        sizes from the largest on. Return the reduced pass."""
        sizes = failure.sizes
        order = sorted(sizes, key=lambda name: (name not in FREE_SIZES, -sizes[name], name))
        for name in order:
            failure = self._reduce_size(failure, name)
        return failure

    def _reduce_size(self, failure: Failure, name: str) -> Failure:
        """Reduce the size ``name``, e.g. ``batch``. Try size 1 first. If the pass does not fail at
        size 1, subtract half of the size repeatedly; whenever the pass no longer fails, subtract
        half as much."""
        size = failure.sizes.get(name, 1)
        smallest = self._find_failing(resize(failure, name, 1, first=f) for f in (True, False))
        if size > 1 and smallest is not None:
            return smallest
        step = size // 2
        while step and not self.over:
            size = failure.sizes.get(name, 1)
            if size - step < 1:
                step = min(step // 2, size - 1)
                continue
            smaller = self._find_failing(
                resize(failure, name, size - step, first=f) for f in (True, False)
            )
            if smaller is None:
                step //= 2
            else:
                failure = smaller
        return failure

    def _reduce_nodes(self, failure: Failure) -> Failure:
        """Reduce the program of the failing pass to a single failing node. If none fails alone,
        reduce it to a sequence of consecutive nodes that fails. Return the reduced pass."""
        count = len(failure.program.nodes)
        if count < 2 or any(p.name.startswith(ALONG) for p in failure.program.inputs):
            return failure  # the program is already a part of a larger program
        order = sorted(range(count), key=lambda n: failure.program.nodes[n].op != "call")
        segments = Segments(failure)
        alone = self._find_failing(segments.extract(n, n + 1) for n in order)
        if alone is not None:
            return alone
        start, stop = 0, count
        step = count // 2
        while step and not self.over:
            parts = ((start + step, stop), (start, stop - step))
            smaller = next(
                (
                    part
                    for part in parts
                    if part[0] < part[1] and self._still_fails(segments.extract(*part))
                ),
                None,
            )
            if smaller is None:
                step //= 2
            else:
                start, stop = smaller
        if (start, stop) == (0, count):
            return failure
        return segments.extract(start, stop) or failure

    def _find_failing(self, candidates: Iterator[Failure | None]) -> Failure | None:
        return next((c for c in candidates if c is not None and self._still_fails(c)), None)

    def _still_fails(self, candidate: Failure | None) -> bool:
        if candidate is None or self.over:
            return False
        self.tried += 1
        self.show(self.tried, candidate)
        return self.differs(candidate)


def measure(failure: Failure) -> tuple[int, int]:
    """Return the size of a failing pass as two numbers: the number of entries of all arrays, and
    the number of nodes of the program."""
    groups = vars(failure.run.material).values()
    return sum(a.size for group in groups for a in group.values()), len(failure.program.nodes)


SUFFIX = "-reduced"


@dataclass
class Runner:
    """A backend that runs failing passes again, each with a time limit of ``seconds``. ``layers``
    maps each layer to the code that ran it in the last pass."""

    worker: Worker
    seconds: float
    layers: Mapping[str, str] = field(default_factory=dict)

    def deviations(self, failure: Failure) -> list[Deviation]:
        """Run the failing pass again on the backend, and compare its results with the oracle's.
        Return one deviation per result.

        Raises:
            WorkerFault: the pass could not be run.
            OracleFault: the oracle ran out of time or memory.
        """
        cell = failure.cell
        remote = Remote(self.worker, self.seconds)
        with with_time_limit(TimeLimit(self.seconds)):
            expected = failure.run_oracle()
            programs = (failure.training, failure.inference)
            self.layers = remote.open(*programs, None, cell.path, cell.dtype, cell.device)
            return expected.deviations(failure.run.run(remote), cell.dtype)

    def differs(self, failure: Failure) -> bool:
        """Return whether any number of the pass differs from the oracle when the backend runs it.

        If a pass cannot run, or has wrong shapes, the result is False: this is not the failure that
        the reproducer shows.
        """
        try:
            return any(not d.agrees and not d.reason for d in self.deviations(failure))
        except (WorkerFault, OracleFault, HarnessError, ValueError):
            return False


# A function that writes additional files into a reproducer's folder and returns lines about these
# files. The launch says how to start the backend.
WriteFiles = Callable[[Launch, Path, CellResult], list[str]]


def run_reduce(options: ReduceOptions, write_files: WriteFiles) -> CommandResult:
    """Run the command ``harness reduce``: make a reproducer smaller, and write the smaller
    reproducer to a new folder.

    Raises:
        UsageError: the folder has no reproducer, the reproducer agrees, or the new folder exists
            already.
        CouldNotRun: the backend or the oracle could not run.
    """
    folder = options.folder
    target = options.output or _choose_target(folder)
    if os.path.lexists(target):
        raise UsageError(
            f"{displayed(target)} already exists: choose another folder with --output, or move "
            "this one"
        )
    original: Failure = load(folder)
    launch = Launch(*choose_process(options, options.backend or original.cell.backend))
    name = launch.backend
    with Worker(launch) as worker, Progress(console(error=True), "reducing") as bar:
        runner = Runner(worker, options.timeout)
        bar.step(f"running {original.run.check} of {original.cell.spec} on {name}")
        programs = (original.training, original.inference)
        try:
            cell = place_cell(worker, original.cell, options.device, programs)
            original = replace(original, cell=cell)
            deviations = runner.deviations(original)
        except (WorkerFault, OracleFault) as fault:
            trace = fault.traceback if isinstance(fault, WorkerFault) else ""
            raise CouldNotRun(f"{name}: {fault}", trace) from None
        if all(d.agrees or d.reason for d in deviations):
            raise UsageError(f"{displayed(folder)} agrees on {name}, so there is nothing to reduce")

        def show(tried: int, candidate: Failure) -> None:
            sizes = ", ".join(f"{name} {size}" for name, size in candidate.sizes.items())
            bar.doing(f"pass {tried}: {sizes}")

        search = Search(runner.differs, options.search_timeout, show)
        bar.step(f"looking for a smaller failure (at most {search.seconds:g} s)")
        reduced = search.smallest(original)
        version = worker.versions
        finding = Finding(reduced.run.check, runner.deviations(reduced)).judge()
    programs = (reduced.training, reduced.inference)
    write(target, Reproducer(cell, *programs, reduced.run, reduced.run_oracle()))
    result = CellResult(cell, [finding], runner.layers, version=version)
    # All layers that remain in the reduced program belong to the failure.
    result.wrong_layers = tuple(runner.layers)
    notes = write_files(launch, target, result)
    lines = _describe_reduction(original, reduced, search)
    lines += [f"reproducer: harness replay {quoted(str(target))}", *notes]
    return CommandResult(
        _make_record(target, cell, original, reduced, search, notes), "\n".join(lines)
    )


def _choose_target(folder: Path) -> Path:
    """Return the default path of the new folder: in the same parent folder, with the old folder's
    name and "-reduced".

    The paths ``.``, ``..`` and symbolic links are resolved to get the name of the old folder.

    Raises:
        UsageError: the folder has no name, e.g. ``/``.
    """
    resolved = folder.resolve()
    if not resolved.name:
        raise UsageError(
            f"{displayed(folder)} has no folder name: choose the new folder with --output"
        )
    return (folder if folder.name not in ("", "..") else resolved).with_name(
        f"{resolved.name}{SUFFIX}"
    )


def _make_record(
    target: Path,
    cell: Cell,
    original: Failure,
    reduced: Failure,
    search: Search,
    notes: Sequence[str],
) -> dict[str, object]:
    """Return the result of a reduction as the dictionary that ``--json`` prints. It has the sizes
    and layers before (``original``) and after (``reduced``), and the number of passes that were
    tried."""
    return {
        "folder": os.fspath(target),
        **cell.record(),
        "check": reduced.run.check,
        "sizes": {"before": dict(original.sizes), "after": dict(reduced.sizes)},
        "layers": {"before": _list_layers(original), "after": _list_layers(reduced)},
        "passes": search.tried,
        "time_was_up": search.over,
        "notes": list(notes),
    }


def _list_layers(failure: Failure) -> list[str]:
    nodes = (node for node in failure.program.nodes if node.op == "call")
    return [str(node.attributes["label"]) for node in nodes]


def _describe_reduction(original: Failure, reduced: Failure, search: Search) -> list[str]:
    sizes = [
        f"{name} {size} -> {reduced.sizes[name]}"
        if name in reduced.sizes
        else f"{name} {size} -> removed"
        for name, size in original.sizes.items()
    ]
    layers = ", ".join(_list_layers(reduced)) or "no layer"
    time_text = "; the time limit was reached" if search.over else ""
    return [
        f"sizes: {', '.join(sizes)}",
        f"layers left: {layers} ({len(original.program.nodes)} -> {len(reduced.program.nodes)} "
        "operations outside of layers)",
        f"{search.tried} passes tried{time_text}",
    ]


# The command ``harness replay`` runs a reproducer on its own backend or on a different backend.

# The number of times that a pass runs. A result that depends on uninitialised memory may be right
# by chance.
PASSES = 3


def run_replay(options: ReplayOptions) -> CommandResult:
    """Run the command ``harness replay``. The exit code is 0 if all passes agree, 1 if a pass
    differs.

    Raises:
        UsageError: the folder has no reproducer with expected values, or the backend does not
            support the reproducer.
        CouldNotRun: the backend cannot be run.
    """
    reproducer = load(options.folder)
    if not reproducer.expected.values:
        raise UsageError(f"the reproducer {options.folder} has no expected values")
    launch = Launch(*choose_process(options, options.backend or reproducer.cell.backend))
    name = launch.backend
    with Worker(launch) as worker, Progress(console(error=True), "replaying") as bar:
        remote = Remote(worker, CELL_SECONDS)
        try:
            bar.step(f"starting {name}")
            programs = (reproducer.training, reproducer.inference)
            cell = place_cell(worker, reproducer.cell, options.device, programs)
            remote.open(*programs, None, cell.path, cell.dtype, cell.device)
            bar.step(f"running {reproducer.run.check} of {cell.spec}")
            passes = [
                reproducer.expected.deviations(reproducer.run.run(remote), cell.dtype)
                for _ in range(PASSES)
            ]
        except WorkerFault as fault:
            raise CouldNotRun(f"{name}: {fault}", fault.traceback) from None
    wrong = [
        deviations_of_pass
        for deviations_of_pass in passes
        if not all(d.agrees for d in deviations_of_pass)
    ]
    deviations, code = (wrong or passes)[0], EXIT_FAILED if wrong else EXIT_PASSED
    record = {"exit_code": code, **cell.record(), "check": reproducer.run.check}
    record |= {"agrees": not wrong, "passes": PASSES, "wrong_passes": len(wrong)}
    record |= {"worst": worst(deviations).name, "tensors": [_tensor_record(d) for d in deviations]}
    lines = []
    for d in deviations:
        if not d.agrees:
            point = f"; {d.point}" if d.point else ""
            text = f"error {d.error:.2e}, {d.ratio:.3g} times the yardstick{point}"
            lines.append(f"{d.name}: {d.reason or text}")
    count_text = f" in {len(wrong)} of {PASSES} passes" if 0 < len(wrong) < PASSES else ""
    verdict = f"differs{count_text}" if wrong else f"agrees in {PASSES} passes"
    place = name if cell.device == reproducer.cell.device else f"{name} ({cell.device})"
    text = f"{cell.spec} on {place}, {cell.dtype}, check {reproducer.run.check}"
    lines.append(f"{text}: {verdict}; worst tensor: {worst(deviations).name}")
    return CommandResult(record, "\n".join(lines), code)


def _tensor_record(deviation: Deviation) -> dict[str, object]:
    """Return the deviation of a tensor as the dictionary that ``--json`` prints. Its values
    ``error`` and ``allowed`` are relative to the oracle's values."""
    return {
        "name": deviation.name,
        "error": deviation.error,
        "allowed": deviation.tolerance,
        "agrees": deviation.agrees,
        "reason": deviation.reason,
    }


def place_cell(worker: Worker, cell: Cell, device: str | None, programs: Iterable[Program]) -> Cell:
    """Return the cell in which a reproducer runs on a worker's backend.

    The cell's device is ``device``. If ``device`` is None, it is the reproducer's device, or the
    CPU if the worker's backend does not have this device. ``programs`` are the programs whose
    primitives the backend must support.

    Raises:
        WorkerFault: the worker does not start.
        UsageError: the worker does not support the device, the dtype or a primitive.
    """
    backend = worker.launch.backend
    chosen = device or cell.device
    if device is None and backend != cell.backend:
        chosen = nearest_device(worker, chosen)
    check_offered(worker, chosen, cell.dtype, programs)
    return replace(cell, backend=backend, device=chosen)
