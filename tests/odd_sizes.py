"""Correct backends at unusual sizes: how many cells fail, crash, or have no answer.

Runs every check on every Lesson 6 system with one unusual size at a time, and writes
docs/odd-sizes.md from the record next to this file. This is not a test: it takes minutes per
backend.

    python tests/odd_sizes.py measure --backend numpy --backend torch
    python tests/odd_sizes.py measure --backend numpy --backend torch --narrow
    python tests/odd_sizes.py page
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from harness.checking.engine import Engine
from harness.checking.options import DTYPES
from harness.checking.request import Request
from harness.files.atomic import write_whole
from harness.results.findings import PASSING
from harness.runtime.precision import NARROW

RECORD = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[1] / "docs" / "odd-sizes.md"
SIZES: Mapping[str, tuple[int, ...]] = {
    "batch": (1, 33),
    "time": (1, 2, 33, 100),
    "hidden": (1, 7, 512),
    "vocab": (1, 2, 300),
}
VARIANTS = [f"{name}={size}" for name, sizes in SIZES.items() for size in sizes]


# The dtypes of each table. The keys of the record end with the name of their table.
TABLES: Mapping[str, tuple[str, ...]] = {"wide": DTYPES, "narrow": NARROW}


def run(backend: str, variant: str, seed: int, dtypes: tuple[str, ...]) -> dict[str, Any]:
    """Run all checks in some dtypes; return the cells by verdict, and the text of each fault."""
    name, _, size = variant.partition("=")
    sizes = {name: int(size)}
    request = Request(backends=(backend,), sizes=sizes, seed=seed, dtypes=dtypes, timeout=600.0)
    with Engine(request) as engine:
        report = engine.run()
        versions = {r.version for r in report.results if r.version}
    verdicts = Counter(result.verdict for result in report.results)
    findings = [(r.cell, f) for r in report.results for f in r.findings]
    return {
        "verdicts": dict(verdicts),
        "versions": sorted(versions),
        "comparisons": sum(f.comparisons for _, f in findings),
        "silent": sum(f.verdict == "not-applicable" for _, f in findings),
        "faults": [f"{c}: {f.check}: {f.detail}" for c, f in findings if f.verdict not in PASSING],
    }


@click.group()
def main() -> None:
    """Check correct backends at unusual sizes."""


@main.command()
@click.option("--backend", "backends", multiple=True, required=True)
@click.option("--variant", "variants", multiple=True, type=click.Choice(VARIANTS))
@click.option("--seed", default=0)
@click.option("--narrow", is_flag=True, help=f"In {' and '.join(NARROW)}.")
def measure(backends: tuple[str, ...], variants: tuple[str, ...], seed: int, narrow: bool) -> None:
    """Run the cells that are missing in the record, and store each result at once."""
    table = "narrow" if narrow else "wide"
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for variant in variants or VARIANTS:
        for backend in backends:
            key = f"{backend} {variant} {seed} {table}"
            if key in record:
                continue
            record[key] = run(backend, variant, seed, TABLES[table])
            write_whole(RECORD, json.dumps(record, indent=1).encode())
            click.echo(f"{key}: {record[key]['verdicts']}")
            for fault in record[key]["faults"]:
                click.echo(f"  {fault}"[:300])


@main.command()
def page() -> None:
    """Write the page from the record."""
    record = json.loads(RECORD.read_text())
    tables = {
        " and ".join(dtypes): {key: one for key, one in record.items() if key.endswith(f" {table}")}
        for table, dtypes in TABLES.items()
    }
    lines = [
        "# Odd sizes",
        "",
        "This page shows whether `harness check` gives false alarms at unusual sizes.",
        "",
        "`python tests/odd_sizes.py page` writes this page. All checks ran on all Lesson 6 models,",
        "on the path `native`, with one unusual size at a time. The table shows how many cells",
        "passed. The number in parentheses counts checks that compared nothing, because rounding",
        "errors decide their results.",
        "",
        *(f"- {name}: {_total(of_it)}" for name, of_it in tables.items()),
        "",
        f"| size | {' | '.join(tables)} |",
        "|---|" + "---:|" * len(tables),
    ]
    for variant in VARIANTS:
        places = (_place(of_it, variant) for of_it in tables.values())
        lines.append(f"| `{variant}` | {' | '.join(places)} |")
    write_whole(PAGE, ("\n".join(lines) + "\n").encode())


def _total(record: Mapping[str, Any]) -> str:
    """Return the backends of a table, its comparisons, and each fault."""
    backends = dict.fromkeys(key.split()[0] for key in record)
    total = sum(one["comparisons"] for one in record.values())
    faults = [fault for one in record.values() for fault in one["faults"]]
    lines = [f"{total:,} comparisons on {', '.join(backends)}, {len(faults)} mismatches"]
    return "\n  - ".join([*lines, *faults])


def _place(record: Mapping[str, Any], variant: str) -> str:
    found = [one for key, one in record.items() if key.split()[1] == variant]
    if not found:
        return "not run"
    verdicts: Counter[str] = Counter()
    for one in found:
        verdicts.update(one["verdicts"])
    passing = sum(count for verdict, count in verdicts.items() if verdict in PASSING)
    silent = sum(one["silent"] for one in found)
    return f"{passing} of {sum(verdicts.values())}" + (f" ({silent})" if silent else "")


if __name__ == "__main__":
    main()
