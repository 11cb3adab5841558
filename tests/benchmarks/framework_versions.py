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
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from harness.files.atomic import write_whole
from harness.language.library import lesson6
from harness.results.blocks import ended
from harness.results.file import read_records
from harness.results.findings import PASSING, digits
from harness.results.lines import Pair
from harness.timing.compare import relative
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
HARNESS = str(Path(sys.executable).parent / "harness")
INTRODUCTION = """# Framework versions

The last five minor releases of each framework for Python 3.11, each in an environment that
`harness env` made, on the twelve systems of Lesson 6: all checks, native path, CPU. An entry is the
digits in which the worst tensor agrees with the oracle, in float64 and in float32; where something
does not agree, the verdict stands before them. `-` was not run.

    harness env torch==2.14.1
    harness check --backend torch,torch@2.14.1

[versions-side-by-side.md](versions-side-by-side.md) has more of that. This page is written by
`python tests/benchmarks/framework_versions.py` from the record of what was run, and from nothing
else.
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
    for cell, result in ended(records).items():
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
    for one in relative(content, columns[0]):
        if one.group not in doubtful:
            speeds = [one.speed.value, one.speed.low, one.speed.high]
            found.setdefault(one.group, {})[one.backend] = [round(s, 3) for s in speeds]
    return found


def page(kept: Mapping[str, Any]) -> str:
    """The page, from all that was run."""
    lines = [INTRODUCTION]
    for framework, versions in VERSIONS.items():
        lines += [f"## {framework}", "", *_framework(framework, versions, kept.get(framework))]
    return "\n".join(lines)


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
    yield "Run: " + ", ".join(
        f"{name} ({count} of {every} cells)"
        for name, count in zip(columns, counts, strict=True)
        if count
    )
    yield from ("", f"| system | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}")
    for spec in lesson6():
        entries = [_entry(cells[name].get(spec, {})) for name in columns]
        yield f"| {spec.removeprefix('lesson6/')} | {' | '.join(entries)} |"
    yield ""
    for name in columns:
        yield from _column(name, told["columns"].get(name))
    yield from ("", *_pairs(told["pairs"]), *_speeds(told["speed"], columns))


def _entry(by_dtype: Mapping[str, Any]) -> str:
    return " \\| ".join(_cell(by_dtype[d]) for d in DTYPES if d in by_dtype) or "-"


def _cell(one: Mapping[str, Any]) -> str:
    shown = "" if one["digits"] is None else f"{one['digits']:.1f}"
    return shown if one["verdict"] in PASSING else f"**{one['verdict']}** {shown}".strip()


def _column(name: str, told: Mapping[str, Any] | None) -> Iterator[str]:
    """With which other versions a column was run, and what was seen where it does not agree."""
    if told is None:
        return
    named = (f"{k} {v}" for k, v in (told["versions"] or {}).items() if "code" not in k)
    yield f"- {name}: {', '.join(named)}"
    faults: dict[str, list[str]] = {}
    for spec, by_dtype in told["cells"].items():
        for dtype, one in by_dtype.items():
            if "fault" in one:
                faults.setdefault(one["fault"], []).append(f"{spec} {dtype}")
    for fault, where in faults.items():
        yield f"  - {', '.join(where)}: `{fault}`"


def _pairs(told: Mapping[str, Any]) -> Iterator[str]:
    """Where two versions part most, without the oracle."""
    if told:
        yield from (
            "Furthest apart, over all systems that were run (relative to the largest number):",
            "",
        )
    for pair, by_dtype in sorted(told.items()):
        yield f"- {pair}: {', '.join(_apart(d, one) for d, one in sorted(by_dtype.items()))}"
    yield ""


def _apart(dtype: str, one: Mapping[str, Any]) -> str:
    if not one["error"]:
        return f"{dtype} the same in every bit"
    return f"{dtype} {one['error']:.1e} ({one['where']})"


def _speeds(told: Mapping[str, Any], columns: Sequence[str]) -> Iterator[str]:
    if not told:
        yield from ("Speeds were not measured: the machine had other work.", "")
        return
    yield from (
        f"Speed of the native path relative to {columns[0]}, 95% confidence in brackets; a cell "
        "whose rounds lie too far apart to be a figure is left out:",
        "",
    )
    yield from (f"| | {' | '.join(columns[1:])} |", f"|---|{'---|' * (len(columns) - 1)}")
    for group, found in sorted(told.items()):
        entries = (
            "{:.2f} [{:.2f}, {:.2f}]".format(*found[n]) if n in found else "-" for n in columns[1:]
        )
        yield f"| {group} | {' | '.join(entries)} |"
    yield ""


if __name__ == "__main__":
    main()
