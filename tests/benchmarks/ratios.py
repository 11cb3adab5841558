"""Backends beside idiomatic hand-written code of the same framework: the ratios of their speeds.

``python tests/benchmarks/ratios.py measure`` times every Lesson 6 system, two of this folder and
the models that ship, in training and forward, at a small and a large batch
(``ratio_systems.py``), and keeps what it found in a record; ``page`` makes docs/performance.md of
it. All sides of a ratio run in one group, in rounds of shuffled order. What the record has is not
measured again unless ``--again`` says so.
"""

from __future__ import annotations

import csv
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from peaks import set_shares
from performance_page import render, rows
from ratio_record import add, keep, of_machine, read
from ratio_systems import BACKENDS, LESSON6, LOOP, LOOP_BESIDE, MODELS, MODES, REAL, SYSTEMS, wanted
from ratio_targets import missed, other_ways, outcome, untimed
from rich.console import Console

from harness.timing.contestant import Contestant, TimedResult
from harness.timing.json_file import environment
from harness.timing.rates import compare_with_peaks, complete_record
from harness.timing.request import BenchRequest, Entry, Group, launch
from harness.timing.rounds import prepare, time_round, warm_up
from harness.timing.workload import TimedCase
from harness.worker.launch import Launch, thread_settings
from harness.worker.worker import Worker

NATIVE = Path(__file__).parent / "native"
RECORD = Path(__file__).parent / "ratios.json"
PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
TABLE = RECORD.with_suffix(".csv")
KNOWN_BATCHES = sorted({size for s in (LESSON6, *MODELS.values()) for size in (s.small, s.large)})
ENGINES = {"keras": "tensorflow", "keras-torch": "torch", "keras-jax": "jax"}
TIMEOUT = 600.0

Pair = dict[str, Any]


class Pairs:
    """The workers of a run, started when they are first needed, and what they are asked."""

    def __init__(self, threads: int, rounds: int) -> None:
        self.threads, self.rounds = threads, rounds
        self._workers: dict[str, Worker] = {}
        self._shuffle = random.Random(0)
        self._peaks: dict[str, dict[Any, float]] = {}

    def __enter__(self) -> Pairs:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.close()

    def request(self, path: str, **changes: Any) -> BenchRequest:
        """The request that a pair is part of."""
        return BenchRequest(path=path, threads=self.threads, rounds=self.rounds, **changes)

    def measure(self, case: TimedCase, backend: str, path: str) -> Pair:
        """Time a backend and its hand-written matches, round after round."""
        ours = Entry(backend, launch(self.request(path), backend))
        names = (backend, *other_ways(backend, case.group.mode, case.group.spec.name))
        return self._time(case, ours, [by_hand(name, self.threads) for name in names], path)

    def measure_loop(self, case: TimedCase) -> Pair:
        """Time the backend that stands beside the notebook's loop."""
        ours = Entry(LOOP_BESIDE, launch(self.request("fastest"), LOOP_BESIDE))
        return self._time(case, ours, [by_hand(LOOP, self.threads)], "fastest")

    def _time(self, case: TimedCase, ours: Entry, natives: Sequence[Entry], path: str) -> Pair:
        contestants = [self._contestant(case, entry) for entry in (ours, *natives)]
        for contestant in contestants:
            contestant.attempt(lambda e: prepare(e, path, lambda *_: None))
        for contestant in contestants:
            contestant.attempt(warm_up)
        for _ in range(self.rounds):
            batches = case.make_unseen_batches()
            for contestant in self._shuffle.sample(contestants, len(contestants)):
                contestant.attempt(lambda e, batches=batches: time_round(e, batches))
        for contestant in contestants:
            contestant.attempt(complete_record)
        compare_with_peaks(contestants)
        first, second, *more = (side(contestant.result) for contestant in contestants)
        names = (native.backend for native in natives[1:])
        found: Pair = {
            "ours": first,
            "native": second,
            "others": dict(zip(names, more, strict=True)),
        }
        found["environment"] = environment(self.request(path), [e.result for e in contestants])
        return found

    def _contestant(self, case: TimedCase, entry: Entry) -> Contestant:
        label = entry.label
        if label not in self._workers:
            self._workers[label] = Worker(entry.launch)
        peaks = self._peaks.setdefault(label, {})
        return Contestant(entry, self._workers[label], case, "cpu", TIMEOUT, peaks)


def by_hand(backend: str, threads: int) -> Entry:
    """The hand-written code of a backend's framework, or another way that it has."""
    settings = {**thread_settings(threads), "PYTHONPATH": str(NATIVE)}
    if backend in ENGINES:
        settings |= {"KERAS_BACKEND": ENGINES[backend], "TF_CPP_MIN_LOG_LEVEL": "2"}
    worker = Launch(backend, handler="worker:handler", environment=settings, cores=threads)
    return Entry(f"{backend} by hand", worker, baseline=True)


def side(result: TimedResult) -> dict[str, Any]:
    """What the record keeps of one side of a pair."""
    names = (
        *("path", "paths", "candidates", "many", "rate", "latency", "values", "overhead"),
        *("share_of_peak", "share_of_own_peak", "share_of_bandwidth", "warm_up", "compile"),
        *("products", "peak"),
    )
    kept = {name: value for name, value in result.record.plain().items() if name in names}
    return {
        "status": result.status,
        "reason": result.reason,
        "seconds": result.seconds,
        "memory": result.record.memory.get("resident"),
        **kept,
    }


def lacks(pairs: Mapping[str, Pair], group: Group, name: str, backend: str) -> bool:
    """Whether a record has no such pair, or one without another way of its framework."""
    return name not in pairs or bool(untimed(pairs[name], backend, group.mode, group.spec.name))


def time_commands(runs: int = 5) -> dict[str, float]:
    """Seconds that the commands take which must not import a framework: medians."""
    harness = Path(sys.executable).with_name("harness")
    return {
        argument: statistics.median(_seconds([str(harness), argument]) for _ in range(runs))
        for argument in ("--help", "list")
    }


def _seconds(command: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return time.perf_counter() - start


def _listed(known: Sequence[str]) -> Callable[[Any, Any, str | None], tuple[str, ...]]:
    def parse(_context: Any, _parameter: Any, text: str | None) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(text.split(","))) if text else tuple(known)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return parse


def _listed_batches(context: Any, parameter: Any, text: str | None) -> tuple[int, ...]:
    """Those that are named; none where none is: each system has two of its own."""
    if not text:
        return ()
    return tuple(map(int, _listed(tuple(map(str, KNOWN_BATCHES)))(context, parameter, text)))


def _known_systems(_context: Any, _parameter: Any, given: Sequence[str]) -> tuple[str, ...]:
    """Return the named systems. ``models`` stands for all shipped models, and ``real`` for all
    models of real size."""
    lists: Mapping[str, Iterable[str]] = {"models": MODELS, "real": REAL}
    found = tuple(dict.fromkeys(n for name in given for n in lists.get(name, (name,))))
    unknown = [name for name in found if name not in (*SYSTEMS, *MODELS, *REAL)]
    if unknown:
        known = ", ".join((*lists, *SYSTEMS, *MODELS, *REAL))
        raise click.BadParameter(f"{unknown[0]!r} is none of {known}")
    return found


@click.group()
def main() -> None:
    """Ratios of the backends' speed to that of hand-written code."""


@main.command()
@click.option("--backend", "backends", callback=_listed(BACKENDS), metavar="B,B")
@click.option("--batch", "batches", callback=_listed_batches, metavar="N,N")
@click.option("--mode", "modes", callback=_listed(MODES), metavar="M,M")
@click.option(
    "--spec",
    "systems",
    multiple=True,
    callback=_known_systems,
    help="All if left out; 'models' stands for all that are not of Lesson 6.",
)
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--again", is_flag=True, help="Measure pairs that the record has already.")
@click.option("--record", default=RECORD, show_default=True, type=click.Path(path_type=Path))
def measure(
    backends: Sequence[str],
    batches: Sequence[int],
    modes: Sequence[str],
    systems: Sequence[str],
    threads: int,
    rounds: int,
    again: bool,
    record: Path,
) -> None:
    """Time the pairs that the record lacks, and add them to it one by one."""
    console = Console(stderr=True)
    found = read(record)
    found["commands"] = time_commands()
    with Pairs(threads, rounds) as pairs:
        for group, entries in wanted(backends, systems, batches, modes):
            kept = found["pairs"]
            missing = [e for e in entries if again or lacks(kept, group, e[0], e[1])]
            case = TimedCase(group, "float32", 0) if missing else None
            for name, backend, path in missing:
                assert case is not None
                loop = backend == LOOP
                pair = pairs.measure_loop(case) if loop else pairs.measure(case, backend, path)
                add(found, name, pair)
                keep(record, found)
                console.print(f"{name}: {outcome(pair)}", markup=False)


@main.command()
@click.option("--record", default=RECORD, show_default=True, type=click.Path(path_type=Path))
@click.option("--output", default=PAGE, show_default=True, type=click.Path(path_type=Path))
def page(record: Path, output: Path) -> None:
    """Write the page and the table of all cells; exit code 1 if a target is missed."""
    found = read(record)
    for place in range(len(found["machines"])):
        set_shares(of_machine(found["pairs"], place))
    output.write_text(render(found))
    if output == PAGE:
        with TABLE.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows(found))
    misses = missed(found)
    for line in misses:
        click.echo(line)
    sys.exit(bool(misses))


if __name__ == "__main__":
    main()
