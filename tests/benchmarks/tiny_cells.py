"""Ten thousand tiny cells on a local Ray cluster: what a cell costs beside its own work.

``python tests/benchmarks/tiny_cells.py measure`` starts clusters of 1, 2 and 4 nodes of one
processor each on this machine (real processes of Ray), checks many small models on numpy on them,
and keeps what it found; ``page`` writes the table of docs/many-machines.md from it.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from marked import put

from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.checking.runner import CheckEvents
from harness.files.atomic import write_whole
from harness.results.cell import Cell, CellResult
from harness.results.file import read_records
from harness.results.lines import End

RECORD = Path(__file__).with_suffix(".json")
# Cells of one model: two dtypes on two paths.
DTYPES, PATHS = ("float32", "float64"), ("native", "derived")
MODEL = """\
model: tiny_{number}
summary: One layer.
source: None, it is made to cost little.
sizes: {{features: 2, units: {units}}}
inputs:
  x: {{shape: [batch, features]}}
layers:
  layer: {{layer: dense, units: units}}
equations: |
  y = layer(x)
targets:
  target: {{shape: [batch, units]}}
loss: mean(squared_error(y, target))
optimizer: {{optimizer: sgd, learning_rate: 0.1}}
"""
# Of all cells, when memory is looked at: after the first tenth, all is warm.
MARKS = (0.1, 0.5, 1.0)


class Clock(CheckEvents):
    """Counts cells, and looks at memory on the way."""

    def __init__(self, cells: int) -> None:
        self._marks = {max(1, round(cells * mark)): mark for mark in MARKS}
        self.ended_cells = 0
        self.own: list[float] = []
        self.first = self.last = 0.0
        self.memory: dict[str, dict[str, int]] = {}

    def ended(self, result: CellResult) -> None:
        """Take the seconds that the cell itself took."""
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.ended_cells += 1
        self.own.append(result.seconds)
        if (mark := self._marks.get(self.ended_cells)) is not None:
            self.memory[str(mark)] = {
                "driver": resident(os.getpid()),
                "node process": max(map(resident, host_processes()), default=0),
            }


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line) * 1024


def host_processes() -> Iterator[int]:
    """Processes on nodes that run cells."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if path.read_bytes().startswith(b"ray::_Host"):
            yield int(path.parent.name)


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """The address of a cluster of so many nodes, each with one processor."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=1)
        yield f"ray://{made.address}"
    finally:
        made.shutdown()


def models(folder: Path, count: int) -> list[str]:
    """The paths of so many models, each with a name of its own, in five sizes."""
    paths = [folder / f"tiny_{number}.yaml" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_text(MODEL.format(number=number, units=1 + number % 5))
    return [str(path) for path in paths]


def run(cells: int, nodes: int, folder: Path) -> dict[str, Any]:
    """Check so many cells on so many nodes; 0 nodes are this process, without a cluster."""
    specs = models(folder, cells // (len(DTYPES) * len(PATHS)))
    records = folder / f"{nodes}.jsonl"
    clock = Clock(cells)
    settings: dict[str, Any] = {
        "specs": tuple(specs),
        "backends": ("numpy",),
        "dtypes": DTYPES,
        "paths": PATHS,
        "checks": ("loss",),
        "records": records,
    }
    if nodes:
        with cluster(nodes) as address, Engine(Request(on=address, **settings), clock) as engine:
            return summary(engine.run(), clock, records, nodes)
    with Engine(Request(**settings), clock) as engine:
        return summary(engine.run(), clock, records, nodes)


def summary(report: Any, clock: Clock, records: Path, nodes: int) -> dict[str, Any]:
    """The figures of a run, whose record is read again: each cell must be there once."""
    found = Counter(line.cell for line in read_records(records).of_kind(End))
    plan: list[Cell] = [result.cell for result in report.results]
    wall = clock.last - clock.first
    # From the first end to the last, all but one cell have been run.
    each = wall / (len(plan) - 1)
    own = statistics.fmean(clock.own)
    return {
        "nodes": nodes,
        "cells": len(plan),
        "seconds": wall,
        "cells_per_second": 1 / each,
        "own_seconds": own,
        # Of several nodes on one machine, cells wait for each other's processors.
        "overhead_seconds": each - own if nodes <= 1 else None,
        "agree": sum(result.verdict == "agree" for result in report.results),
        "lost": len(plan) - len(found),
        "twice": sum(count > 1 for count in found.values()),
        "memory": clock.memory,
        "load": os.getloadavg()[0],
    }


@click.group()
def main() -> None:
    """What a cell costs beside its own work."""


@main.command()
@click.option("--cells", default=10_000, show_default=True, help="How many cells.")
@click.option("--nodes", multiple=True, type=int, default=(0, 1, 2, 4), show_default=True)
def measure(cells: int, nodes: tuple[int, ...]) -> None:
    """Run them on clusters of so many nodes; 0 is without a cluster."""
    found = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for count in nodes:
        with tempfile.TemporaryDirectory() as folder:
            found[str(count)] = run(cells, count, Path(folder))
        click.echo(json.dumps(found[str(count)]))
        write_whole(RECORD, (json.dumps(found, indent=1) + "\n").encode())


def row(figures: Mapping[str, Any]) -> str:
    """A row of the table."""
    memory = figures["memory"]
    grown = " / ".join(
        f"{memory[str(MARKS[0])][who] / 2**20:,.0f} to {memory[str(MARKS[-1])][who] / 2**20:,.0f}"
        for who in ("driver", "node process")
        if memory[str(MARKS[0])][who]
    )
    where = f"{figures['nodes']} nodes" if figures["nodes"] > 1 else "1 node"
    beside = figures["overhead_seconds"]
    return (
        f"| {where if figures['nodes'] else 'without Ray'} | {figures['cells_per_second']:.0f} "
        f"| {'' if beside is None else f'{beside * 1e3:.1f} ms'} | {grown} |"
    )


@main.command()
def page() -> None:
    """Write the table of the page."""
    found = json.loads(RECORD.read_text())
    head = (
        "| | cells per second | overhead per cell | MiB of driver / node's process |\n"
        f"{'|---' * 4}|\n"
    )
    table = head + "".join(f"{row(found[key])}\n" for key in sorted(found, key=int))
    cells, lost, twice = (
        sum(run[name] for run in found.values()) for name in ("cells", "lost", "twice")
    )
    text = f"\nOf {cells:,} cells, {lost} were lost and {twice} duplicated.\n"
    put("many-machines.md", "tiny cells", table + text)


if __name__ == "__main__":
    main()
