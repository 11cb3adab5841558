"""The last five minor releases of each framework on Lesson 6: ``docs/framework-versions.md``.

    python tests/benchmarks/framework_versions.py               # the page, from what was run
    python tests/benchmarks/framework_versions.py --run torch   # make environments, check, write

``--run`` makes the environments with ``harness env`` and checks all columns in one run, whose
records it keeps in ``--keep``: one that was cut short goes on where it was. With ``--speed train``
the columns are timed too, interleaved in one run; a figure that the machine's load makes worthless
is left out. What came of it stands in ``framework_versions.json`` beside this file, from which the
page is written.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import click

from harness.files.atomic import write_whole
from harness.language.library import lesson6
from harness.results.file import read_records
from harness.results.findings import PASSING, digits
from harness.results.lines import Pair
from harness.timing.compare import relative_speeds
from harness.timing.json_file import read

HERE = Path(__file__).parent
RECORD = HERE / "framework_versions.json"
PAGE = HERE.parents[1] / "docs" / "framework-versions.md"
# The last patch of each of the last five minor releases, the newest first, in November 2026.
VERSIONS: Mapping[str, Sequence[str]] = {
    "torch": ("2.15.0", "2.14.1", "2.13.0", "2.12.1", "2.11.0"),
    "jax": ("0.10.2", "0.9.2", "0.8.3", "0.7.2", "0.6.2"),
    "keras": ("3.15.1", "3.14.1", "3.13.2", "3.12.4", "3.11.3"),
}
DTYPES = ("float64", "float32")
RIGHT = re.compile(r"\d+\.\d, \d+\.\d")  # the digits of a model that agrees in both dtypes
HARNESS = str(Path(sys.executable).parent / "harness")
INTRODUCTION = """# Framework versions

This page compares the last five minor releases of torch, JAX and Keras on the twelve models of
fast.ai's Lesson 6. All checks ran with Python 3.11, on a CPU, on the path `native`. The page
[Versions side by side](versions-side-by-side.md) explains the commands for an older version:

    harness env torch==2.14.1
    harness check --backend torch,torch@2.14.1

`python tests/benchmarks/framework_versions.py` writes this page from
[tests/benchmarks/framework_versions.json](../tests/benchmarks/framework_versions.json).

The table shows the largest relative difference between the results of two successive versions. A
checked cell is one model on one version in one dtype. Each speed is divided by the speed of the
newest version, and noisy speeds are left out. A timed cell is one model in one mode. It is slower
or faster if the 95% confidence interval of the speed ratio excludes 1.

"""


@click.command(help=__doc__)
@click.option("--run", "framework", type=click.Choice(list(VERSIONS)), help="Run this framework.")
@click.option("--only", multiple=True, metavar="VERSION", help="Only these versions.")
@click.option("--spec", "specs", multiple=True, help="Only these systems.")
@click.option("--keep", type=click.Path(path_type=Path), default=Path("framework-versions.jsonl"))
@click.option("--speed", multiple=True, metavar="MODE", help="Time train or forward, too.")
def main(
    framework: str | None,
    only: Sequence[str],
    specs: Sequence[str],
    keep: Path,
    speed: Sequence[str],
) -> None:
    """Run what is asked for, keep it, and write the page."""
    kept: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if framework is not None:
        columns = [f"{framework}@{v}" for v in only or VERSIONS[framework]]
        for column in columns:
            subprocess.run([HARNESS, "env", column.replace("@", "==")], check=True)
        told = kept.setdefault(framework, {"columns": {}, "pairs": {}, "speed": {}})
        check(columns, specs, keep)
        distil(keep, columns, told)
        if speed:
            told["speed"] |= timed(columns, specs, speed)
        write_whole(RECORD, (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode())
    # Of what stands in the record, in its order.
    write_whole(PAGE, page(json.loads(json.dumps(kept, sort_keys=True))).encode())


def check(columns: Sequence[str], specs: Sequence[str], keep: Path) -> None:
    """Check all columns in one run, or what is left of it."""
    words = ("--backend", ",".join(columns), "--records", str(keep), "--resume", "--jobs", "1")
    ran = subprocess.run([HARNESS, "check", *specs, *words])
    if ran.returncode not in (0, 1, 3):
        sys.exit(ran.returncode)


def distil(keep: Path, columns: Sequence[str], told: dict[str, Any]) -> None:
    """Add what the records hold of some columns to what is told of a framework."""
    records = read_records(keep)
    for cell, result in records.ended.items():
        if cell.backend in columns:
            column = told["columns"].setdefault(cell.backend, {"cells": {}})
            column["versions"] = result.greeting
            number = digits(result.findings)
            fault = result.first_fault
            column["cells"].setdefault(cell.spec, {})[cell.dtype] = {
                "verdict": result.verdict,
                "digits": None if number is None else round(number, 1),
                **({"fault": f"{fault.check}: {fault.detail}"} if fault else {}),
            }
    for line in records.of_kind(Pair):
        if {*line.backends} <= {*columns}:
            pair = " and ".join(sorted(line.backends))
            worst = told["pairs"].setdefault(pair, {}).setdefault(line.dtype, {})
            if not worst or line.error > worst["error"]:
                worst |= {"error": line.error, "where": f"{line.spec}: {line.worst}"}


def timed(
    columns: Sequence[str], specs: Sequence[str], modes: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """By group, the speed of each column relative to the newest, with its confidence."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speed.json"
        words = ("--backend", ",".join(columns), "--records", str(file), "--rounds", "5")
        words += ("--mode", ",".join(modes), "--path", "native")
        subprocess.run([HARNESS, "bench", *specs, *words])
        content = read(file)
    doubtful = {e.group for e in content.benchmarks if e.extra_info.doubts}
    found: dict[str, dict[str, list[float]]] = {}
    for one in relative_speeds(content, columns[0]):
        if one.group not in doubtful:
            speeds = [one.speed.value, one.speed.low, one.speed.high]
            found.setdefault(one.group, {})[one.backend] = [round(s, 3) for s in speeds]
    return found


def page(kept: Mapping[str, Any]) -> str:
    """Return the page, from all that was run."""
    lines = [INTRODUCTION + "\n".join(_findings(kept)), ""]
    for framework, versions in VERSIONS.items():
        lines += [f"## {framework}", "", *_framework(framework, versions, kept.get(framework))]
    return "\n".join(lines)


def _findings(kept: Mapping[str, Any]) -> Iterator[str]:
    """Yield a row per framework: cells that agree, differences of versions, range of speeds."""
    yield "| | cells that agree | largest difference, float64 | float32 | speed of older versions |"
    yield "|---|---:|---:|---:|---:|"
    for framework in VERSIONS:
        if framework not in kept or not kept[framework]["columns"]:
            continue
        told = kept[framework]
        cells = [
            one["verdict"] in PASSING
            for column in told["columns"].values()
            for by_dtype in column["cells"].values()
            for one in by_dtype.values()
        ]
        apart = [
            max(
                (pair[dtype]["error"] for pair in told["pairs"].values() if dtype in pair),
                default=0,
            )
            for dtype in DTYPES
        ]
        speeds = [found[0] for group in told["speed"].values() for found in group.values()]
        speed = f"{min(speeds):.2f} to {max(speeds):.2f} times" if speeds else ""
        shown = " | ".join(f"{error:.1e}" if error else "equal bits" for error in apart)
        yield f"| {framework} | {sum(cells)} of {len(cells)} | {shown} | {speed} |"


def _framework(
    framework: str, versions: Sequence[str], told: Mapping[str, Any] | None
) -> Iterator[str]:
    if told is None or not told["columns"]:
        yield from ("Not run yet.", "")
        return
    columns = [f"{framework}@{version}" for version in versions]
    cells = {name: told["columns"].get(name, {"cells": {}})["cells"] for name in columns}
    counts = [sum(len(by_dtype) for by_dtype in cells[name].values()) for name in columns]
    every = len(lesson6()) * len(DTYPES)
    if min(counts) < every:
        named = zip(columns, counts, strict=True)
        yield "Checked cells: " + ", ".join(f"{name} ({n}/{every})" for name, n in named if n)
        yield ""
    rows = {s: [_entry(cells[name].get(s, {})) for name in columns] for s in lesson6()}
    differ = {spec: row for spec, row in rows.items() if len(set(row)) > 1}
    if len(differ) < len(rows):
        same = f"{len(rows) - len(differ)} models" if differ else "all models"
        yield from (f"All versions agree with the oracle to equally many digits on {same}.", "")
    right = [row for row in differ.values() if all(map(RIGHT.fullmatch, row))]
    if right:
        yield from (f"On other models, the digits differ by at most {_largest(right)}.", "")
    if len(right) < len(differ):
        yield from ("The digits of agreement of models that differ (float64, float32):", "")
        yield from (f"| system | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}")
        for spec, row in differ.items():
            if row not in right:
                yield f"| {spec.removeprefix('lesson6/')} | {' | '.join(row)} |"
        yield ""
    packages = {name: _packages(column) for name, column in told["columns"].items()}
    first = next(iter(packages.values()))
    shared = [p for p in first if all(p in own for own in packages.values())]
    if shared:
        yield from (f"All versions used {', '.join(shared)}.", "")
    own = [
        ", ".join(p for p in packages[name] if p not in (*shared, name.replace("@", " ")))
        for name in columns
        if name in packages
    ]
    if any(own):
        yield from (f"From the newest version to the oldest, they used {'; '.join(own)}.", "")
    for name in columns:
        yield from _faults(name, cells[name])
    yield from _pairs(told["pairs"], columns)
    yield from _speeds(told["speed"], columns)


def _largest(rows: Sequence[Sequence[str]]) -> str:
    """Return the largest difference within a row, in each dtype: ``1.8 in float64 and ...``."""
    found = []
    for place, dtype in enumerate(DTYPES):
        digits = [[float(entry.split(", ")[place]) for entry in row] for row in rows]
        found.append(f"{max(max(row) - min(row) for row in digits):.1f} in {dtype}")
    return " and ".join(found)


def _entry(by_dtype: Mapping[str, Any]) -> str:
    return ", ".join(_cell(by_dtype[d]) for d in DTYPES if d in by_dtype) or "-"


def _cell(one: Mapping[str, Any]) -> str:
    shown = "" if one["digits"] is None else f"{one['digits']:.1f}"
    return shown if one["verdict"] in PASSING else f"**{one['verdict']}** {shown}".strip()


def _packages(column: Mapping[str, Any]) -> list[str]:
    """Return the packages of a column, e.g. ``["numpy 2.4.6"]``."""
    return [f"{k} {v}" for k, v in (column["versions"] or {}).items() if "code" not in k]


def _faults(name: str, cells: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of a column, each with its cells."""
    faults: dict[str, list[str]] = {}
    for spec, by_dtype in cells.items():
        for dtype, one in by_dtype.items():
            if "fault" in one:
                faults.setdefault(one["fault"], []).append(f"{spec} {dtype}")
    for fault, where in faults.items():
        yield from (f"- {name}: {', '.join(where)}: `{fault}`", "")


def _pairs(told: Mapping[str, Any], columns: Sequence[str]) -> Iterator[str]:
    """Yield the largest distance of neighbouring versions, without the oracle."""
    if not told:
        return
    yield from (
        "Largest relative difference between two successive versions:",
        "",
    )
    yield from ("| versions | float64 | float32 |", "|---|---:|---:|")
    for new, old in pairwise(columns):
        by_dtype = told.get(" and ".join(sorted((old, new))))
        if by_dtype:
            apart = (_apart(by_dtype[d]) if d in by_dtype else "" for d in DTYPES)
            yield f"| {old} and {new} | {' | '.join(apart)} |"
    yield ""


def _apart(one: Mapping[str, Any]) -> str:
    return f"{one['error']:.1e}" if one["error"] else "equal bits"


def _speeds(told: Mapping[str, Any], columns: Sequence[str]) -> Iterator[str]:
    if not told:
        yield from ("Speeds were not measured, because the machine had other work.", "")
        return
    yield from (
        f"Speeds divided by the speed of {columns[0]}:",
        "",
        "| | cells | median | range | slower | faster |",
        "|---|---:|---:|---:|---:|---:|",
    )
    for name in columns[1:]:
        found = [group[name] for group in told.values() if name in group]
        if found:
            ratios = [one[0] for one in found]
            slower, faster = sum(one[2] < 1 for one in found), sum(one[1] > 1 for one in found)
            span = f"{min(ratios):.2f} to {max(ratios):.2f}"
            figures = f"{len(found)} | {median(ratios):.2f} | {span} | {slower} | {faster}"
            yield f"| {name} | {figures} |"
    yield ""


if __name__ == "__main__":
    main()
