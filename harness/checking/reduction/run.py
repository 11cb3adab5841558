"""``harness reduce``: a reproducer is made as small as it stays wrong, in a folder of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.checking.reduction.failure import Failure
from harness.checking.reduction.search import Search
from harness.checking.replay import placed
from harness.checking.reproducer import Reproducer, load, write
from harness.environments.columns import process_of
from harness.errors import HarnessError, UsageError
from harness.files.user_file import displayed
from harness.oracle.patience import OracleFault, Patience, with_patience
from harness.oracle.tolerance import Deviation
from harness.output.printing import console, say, tell
from harness.output.progress import Progress
from harness.output.shell import quoted
from harness.results.cell import Cell, CellResult
from harness.results.findings import Finding
from harness.worker.launch import Launch
from harness.worker.remote import Remote, WorkerFault, with_trace
from harness.worker.worker import Worker

SUFFIX = "-reduced"


@dataclass
class Runner:
    """Runs failures on a backend, each for so many seconds at most; one that hangs, or cannot be
    run at all, is none."""

    worker: Worker
    seconds: float
    layers: Mapping[str, str] = field(default_factory=dict)
    """Return what ran each layer of the last failure."""

    def deviations(self, failure: Failure) -> list[Deviation]:
        """How the results of a pass compare.

        Raises:
            WorkerFault: it could not be run.
            OracleFault: the oracle has not the time or the memory for it.
        """
        cell = failure.cell
        remote = Remote(self.worker, self.seconds)
        with with_patience(Patience(self.seconds)):
            expected = failure.expected()
            programs = (failure.training, failure.inference)
            self.layers = remote.open(*programs, None, cell.path, cell.dtype, cell.device)
            return expected.deviations(failure.run.run(remote), cell.dtype)

    def differs(self, failure: Failure) -> bool:
        """Whether some number is off. A pass that fails to run is another failure, and not this."""
        try:
            return any(not d.agrees and not d.reason for d in self.deviations(failure))
        except (WorkerFault, OracleFault, HarnessError, ValueError):
            return False


# Writes more into the folder of a reproducer of a backend that is launched so, and tells of it in
# lines.
Beside = Callable[[Launch, Path, CellResult], list[str]]


def run_reduce(
    folder: Path,
    output: Path | None,
    backend: str | None,
    options: Mapping[str, Any],
    beside: Beside,
) -> int:
    """Reduce a reproducer and write what is left; returns the exit code.

    ``options`` say with which interpreter and variables, how long a pass and the search may take,
    and whether to print JSON.

    Raises:
        UsageError: the folder holds no reproducer, it agrees, or there is something at the place
            of the new one.
    """
    target = output or _beside(folder)
    if os.path.lexists(target):
        raise UsageError(
            f"{displayed(target)} is there already: name another folder with --output, or move it"
        )
    whole = Failure.of(load(folder))
    launch = Launch(*process_of(options, backend or whole.cell.backend))
    name = launch.backend
    with Worker(launch) as worker, Progress(console(error=True), "reducing") as bar:
        runner = Runner(worker, options["timeout"])
        bar.step(f"running {whole.run.check} of {whole.cell.spec} on {name}")
        programs = (whole.training, whole.inference)
        try:
            cell = placed(worker, whole.cell, options["device"], programs)
            whole = replace(whole, cell=cell)
            found = runner.deviations(whole)
        except (WorkerFault, OracleFault) as fault:
            trace = fault.traceback if isinstance(fault, WorkerFault) else ""
            tell(with_trace(f"{name}: {fault}", trace), error=True)
            return 3
        if all(d.agrees or d.reason for d in found):
            raise UsageError(f"{displayed(folder)} agrees on {name}: there is nothing to reduce")
        search = Search(runner.differs, options["search_timeout"], partial(_shown, bar))
        bar.step(f"looking for a smaller failure (at most {search.seconds:g} s)")
        small = search.smallest(whole)
        version = worker.versions
        finding = Finding(small.run.check, runner.deviations(small)).judge()
    expected = small.expected()
    write(target, Reproducer(cell, small.training, small.inference, small.run, expected))
    result = CellResult(cell, [finding], runner.layers, version=version)
    # All that is left is part of the failure.
    result.wrong_layers = tuple(runner.layers)
    more = beside(launch, target, result)
    if options["as_json"]:
        say(json.dumps(_record(target, cell, whole, small, search, more)))
        return 0
    for line in _told(whole, small, search):
        tell(line)
    tell(f"reproducer: harness replay {quoted(str(target))}")
    for line in more:
        tell(line)
    return 0


def _shown(bar: Progress, tried: int, candidate: Failure) -> None:
    """What is tried now, below the bar of a terminal."""
    sizes = ", ".join(f"{name} {size}" for name, size in candidate.sizes.items())
    bar.doing(f"pass {tried}: {sizes}")


def _beside(folder: Path) -> Path:
    """The new folder, next to the old one; the name of ``.``, ``..`` or a link is that of what it
    leads to.

    Raises:
        UsageError: nothing can stand beside it.
    """
    whole = folder.resolve()
    if not whole.name:
        raise UsageError(f"{displayed(folder)} has no name: name the new folder with --output")
    return (folder if folder.name not in ("", "..") else whole).with_name(f"{whole.name}{SUFFIX}")


def _record(
    target: Path, cell: Cell, whole: Failure, small: Failure, search: Search, more: Sequence[str]
) -> dict[str, Any]:
    """Return the result of a reduction for ``--json``, with each ``before`` and ``after``."""
    return {
        "folder": os.fspath(target),
        **cell.record(),
        "check": small.run.check,
        "sizes": {"before": dict(whole.sizes), "after": dict(small.sizes)},
        "layers": {"before": _layers(whole), "after": _layers(small)},
        "passes": search.tried,
        "time_was_up": search.over,
        "notes": list(more),
    }


def _layers(failure: Failure) -> list[str]:
    nodes = (node for node in failure.program.nodes if node.op == "call")
    return [str(node.attributes["label"]) for node in nodes]


def _told(whole: Failure, small: Failure, search: Search) -> list[str]:
    """What has become smaller."""
    sizes = [
        f"{name} {size} -> {small.sizes[name]}" if name in small.sizes else f"{name} {size} -> gone"
        for name, size in whole.sizes.items()
    ]
    left = ", ".join(_layers(small)) or "no layer"
    over = "; the time was up" if search.over else ""
    return [
        f"sizes: {', '.join(sizes)}",
        f"layers left: {left} ({len(whole.program.nodes)} -> {len(small.program.nodes)} operations"
        f" outside of layers)",
        f"{search.tried} passes tried{over}",
    ]
