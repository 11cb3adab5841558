"""Many results in one record file: several writers at once, the size of a result, reading it back.

``python tests/benchmarks/record_writers.py measure`` lets 1, 2, 4 and 8 processes append the cells
of a real check to one file, under other names, and reads what is there; ``page`` writes the
sentences of docs/many-machines.md from what it found.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from marked import put

from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.files.atomic import write_whole
from harness.files.system import peak_memory
from harness.files.user_file import MAX_RECORDS
from harness.results.file import RecordWriter, parse_line, read_records
from harness.results.lines import End, Result

RECORD = Path(__file__).with_suffix(".json")
Lines = list[dict[str, Any]]


def one_cell(folder: Path) -> tuple[dict[str, Any], Lines]:
    """The head of a record, and the lines of its one cell, of a real check."""
    path = folder / "one.jsonl"
    request = Request(("lesson6/simple_rnn",), ("numpy",), dtypes=("float64",), records=path)
    with Engine(request) as engine:
        engine.run()
    first, *lines = (line.plain() for line in read_records(path).lines)
    return first, [line for line in lines if line["kind"] in ("begin", "result", "end")]


def append(path: Path, lines: Lines, writer: int, cells: int) -> None:
    """What a run does: each cell's beginning, and then its results and its end."""
    with RecordWriter(path) as records:
        for number in range(cells):
            named = ({**line, "spec": f"model_{writer}_{number}"} for line in lines)
            begin, *rest = (parse_line(json.dumps(line).encode()) for line in named)
            records.append(begin, durable=False)
            records.append(*rest)


def written(path: Path, lines: Lines, writers: int, cells: int) -> dict[str, Any]:
    """Let so many processes write so many cells in all, and count what is there."""
    processes = [
        multiprocessing.Process(target=append, args=(path, lines, number, cells // writers))
        for number in range(writers)
    ]
    began = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - began
    if any(process.exitcode for process in processes):
        raise click.ClickException("a writer failed")
    done = cells // writers * writers
    return {
        "writers": writers,
        "cells": done,
        "seconds": seconds,
        "cells_per_second": done / seconds,
    }


def reading(path: Path) -> dict[str, Any]:
    """Read a record as ``report`` and ``--resume`` do, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_read, (path,))


def _read(path: Path) -> dict[str, Any]:
    before = peak_memory()
    began = time.process_time()
    records = read_records(path)
    seconds = time.process_time() - began
    ends = Counter(line.cell for line in records.of_kind(End))
    return {
        "results": len(records.of_kind(Result)),
        "cells": len(ends),
        "twice": sum(count > 1 for count in ends.values()),
        "torn": records.torn is not None or bool(records.repaired),
        "bytes": path.stat().st_size,
        "seconds": seconds,
        "memory": peak_memory() - before,
    }


@click.group()
def main() -> None:
    """Many results in one record file."""


@main.command()
@click.option("--cells", default=6_000, show_default=True, help="Of each run.")
@click.option("--writers", multiple=True, type=int, default=(1, 2, 4, 8), show_default=True)
def measure(cells: int, writers: tuple[int, ...]) -> None:
    """Write them by so many processes at once, and read the last file back."""
    runs = []
    with tempfile.TemporaryDirectory() as name:
        head, lines = one_cell(Path(name))
        for count in writers:
            path = Path(name) / f"{count}.jsonl"
            with RecordWriter(path) as records:
                records.append(head)
            run = written(path, lines, count, cells)
            read = reading(path)
            runs.append({**run, "lost": run["cells"] - read["cells"], "twice": read["twice"]})
            click.echo(json.dumps(runs[-1]))
        found = {"runs": runs, "reading": read, "load": os.getloadavg()[0], "cpus": os.cpu_count()}
    click.echo(json.dumps(read))
    write_whole(RECORD, (json.dumps(found, indent=1) + "\n").encode())


def sentences(found: Mapping[str, Any]) -> str:
    """Return the text of the page: the speed of several writers, and the cost of a result."""
    runs, read = found["runs"], found["reading"]
    rates = [run["cells_per_second"] for run in runs]
    lost, twice = (sum(run[name] for run in runs) for name in ("lost", "twice"))
    each = {name: read[name] / read["results"] for name in ("bytes", "seconds", "memory")}
    text = (
        f"{runs[0]['writers']} to {runs[-1]['writers']} processes append {min(rates):,.0f} to "
        f"{max(rates):,.0f} cells per second to one file, with {lost} lost and {twice} duplicate "
        f"cells. A result takes {each['bytes'] / 1024:.1f} KiB of the file. The reader needs "
        f"{each['seconds'] * 1e6:.0f} µs and {each['memory'] / 1024:.1f} KiB of memory for a "
        f"result. A record file can have up to {MAX_RECORDS / 2**30:.0f} GiB, which is "
        f"{MAX_RECORDS / each['bytes'] / 1e6:.1f} million results."
    )
    return textwrap.fill(text, 120) + "\n"


@main.command()
def page() -> None:
    """Write the sentences of the page."""
    put("many-machines.md", "record writers", sentences(json.loads(RECORD.read_text())))


if __name__ == "__main__":
    main()
