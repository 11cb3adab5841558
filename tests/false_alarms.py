"""How often honest backends are blamed, and what K was chosen from.

Runs every Lesson 6 system on every installed backend over many seeds, in float32 and float64, and
writes the distribution of error over yardstick into docs/false-alarms.md, between the markers of
its dtypes. Not a test: it takes an hour.

    python tests/false_alarms.py --seeds 100
    python tests/false_alarms.py --seeds 2 --dtype bfloat16 --dtype float16
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from harness.checking.checks import CHECKS, NOT_NARROW, Context
from harness.checking.options import DTYPES
from harness.checking.request import Request, make_case
from harness.environments.columns import choose
from harness.files.atomic import write_whole
from harness.language.library import lesson6
from harness.language.model import Spec, load_spec
from harness.oracle.case import Case
from harness.results.findings import PASSING, Finding
from harness.runtime.precision import NARROW
from harness.worker.launch import Launch
from harness.worker.remote import Remote
from harness.worker.worker import Worker

# The last but one group compares only in float64.
GROUPS = (
    *("values", "cotangents", "inference", "carried-state", "training-sgd", "training", "kinks"),
)
DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "false-alarms.md"
CSV = Path(__file__).with_suffix(".csv")
MARKERS = {DTYPES: "wide", NARROW: "narrow"}
QUANTILES = (0.5, 0.99, 1.0)
# Error / yardstick of every tensor, by backend and system.
Ratios = dict[tuple[str, str], list[float]]


@dataclass
class Measured:
    """The results of all seeds in one dtype: ratios, alarms as text, and the number of void
    results.
    """

    ratios: Ratios = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)
    void: int = 0

    def add(self, name: str, case: Case, seed: int, finding: Finding) -> None:
        """Count a finding of a backend."""
        ratios = self.ratios.setdefault((name, case.spec.name), [])
        ratios += [d.ratio for d in finding.deviations if not d.void]
        self.void += sum(d.void for d in finding.deviations)
        if finding.verdict not in PASSING:
            told = f"{case.spec.name}, {name}, seed {seed}: {finding.check}: {finding.detail}"
            self.alarms.append(told)
            print(told, flush=True)

    def of(self, backend: str) -> list[float]:
        """Return the ratios of a backend over all systems."""
        return [r for (name, _), found in self.ratios.items() if name == backend for r in found]


def findings(case: Case, remote: Remote, dtype: str) -> Iterator[Finding]:
    """Yield the findings of some checks in a session that is already open."""
    context = Context(case, case, remote, "native", dtype, "cpu")
    for group in GROUPS:
        if group in NOT_NARROW and dtype in NARROW:
            continue
        for finding in CHECKS[group](context):
            yield finding.judge()


def measure(
    spec: Spec, workers: Mapping[str, Worker], seeds: int, dtype: str, to: Measured
) -> None:
    """Add the results of all seeds for one system."""
    remotes = {name: Remote(worker, 36_000.0) for name, worker in workers.items()}
    case = make_case(spec, Request(), own=False)
    for remote in remotes.values():
        remote.open(case.training, case.inference, spec.update, "native", dtype, "cpu")
    for seed in range(seeds):
        case = make_case(spec, Request(seed=seed), own=False)
        for name, remote in remotes.items():
            for finding in findings(case, remote, dtype):
                to.add(name, case, seed, finding)


@click.command(help=__doc__)
@click.option("--seeds", default=100)
@click.option("--backend", "named", multiple=True)
@click.option("--spec", "specs", multiple=True)
@click.option("--dtype", "dtypes", multiple=True, default=DTYPES)
def main(
    seeds: int, named: tuple[str, ...], specs: tuple[str, ...], dtypes: tuple[str, ...]
) -> None:
    """Measure, and write the tables if the run covers all backends and the dtypes of a part."""
    started = time.monotonic()
    workers = {name: Worker(Launch(name)) for name in choose(list(named)).names}
    measured = {dtype: Measured() for dtype in dtypes}
    try:
        for name in specs or lesson6():
            for dtype, one in measured.items():
                measure(load_spec(name), workers, seeds, dtype, one)
            print(f"{name}: after {time.monotonic() - started:.0f} s", flush=True)
        versions = {n: (w.hello or {}).get("versions", {}) for n, w in workers.items()}
    finally:
        for worker in workers.values():
            worker.close()
    text = page(measured, versions, seeds)
    if not named and dtypes in MARKERS:
        write_whole(PAGE, put(PAGE.read_text(), MARKERS[dtypes], text).encode())
        keep(measured)
    print(text)
    print(f"{time.monotonic() - started:.0f} s")


def put(text: str, name: str, tables: str) -> str:
    """Return the page with new tables between the markers of ``name``."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, rest = text.split(start)
    return before + start + tables + end + rest.split(end)[1]


def page(
    measured: Mapping[str, Measured], versions: Mapping[str, Mapping[str, str]], seeds: int
) -> str:
    """Return for each dtype the number of false alarms and the quantiles of all ratios."""
    narrowed = tuple(measured) == NARROW
    lines = [
        f"These tables show results from the seeds 0 to {seeds - 1}."
        if narrowed
        else f"These tables show results from {seeds} seeds."
    ]
    for dtype, one in measured.items():
        lines += ["", f"## {dtype}", "", *_dtype(one, list(versions), narrowed)]
    packages = dict(sorted(pair for found in versions.values() for pair in found.items()))
    lines += ["", f"Versions: {', '.join(f'{k} {v}' for k, v in packages.items())}."]
    return "\n".join(lines) + "\n"


def largest(measured: Mapping[str, Measured]) -> Iterator[tuple[str, str, str, str]]:
    """Yield the rows of the CSV file: the largest error of each system on each backend."""
    for dtype, one in measured.items():
        for (backend, spec), ratios in one.ratios.items():
            yield dtype, spec, backend, f"{max(ratios, default=0):.2f}"


def keep(measured: Mapping[str, Measured]) -> None:
    """Replace the rows of the measured dtypes in the CSV file."""
    with CSV.open(newline="") as file:
        head, *rows = csv.reader(file)
    kept = [tuple(row) for row in rows if row[0] not in measured]
    with CSV.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *kept, *largest(measured)])


def _dtype(one: Measured, backends: list[str], narrowed: bool) -> Iterator[str]:
    total = sum(map(len, one.ratios.values()))
    what = "comparisons of tensors" if narrowed else "comparisons"
    yield (
        f"{total:,} {what} gave {len(one.alarms)} false alarms. {one.void:,} tensors were skipped."
    )
    yield from ("", "Error quantiles in yardsticks:", "")
    yield from _row("backend", [f"{q:g}" for q in QUANTILES])
    yield "|---|" + "---:|" * len(QUANTILES)
    for backend in backends:
        found = np.quantile(one.of(backend), QUANTILES)
        yield from _row(backend, [f"{v:.2f}" for v in found])
    if one.alarms:
        yield from ("", "Alarms:", "", *(f"- {line}" for line in one.alarms))


def _row(first: str, rest: list[str]) -> Iterator[str]:
    yield "| " + " | ".join((first, *rest)) + " |"


if __name__ == "__main__":
    main()
