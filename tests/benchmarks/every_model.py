"""Models that ship, on every backend, with every check: how many cells agree.

Runs one model on one backend at a time, in both dtypes, and writes the table of docs/models.md
from the record beside it. Not a test: it takes minutes for each backend.

    python tests/benchmarks/every_model.py measure --backend numpy --backend torch
    python tests/benchmarks/every_model.py measure --backend torch --path equations --model gpt
    python tests/benchmarks/every_model.py measure --backend numpy --size batch=1 --seed 3
    python tests/benchmarks/every_model.py page
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from marked import put

import harness
from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.files.atomic import write_whole
from harness.language.library import Library
from harness.results.findings import PASSING
from harness.runtime.paths import PATHS

RECORD = Path(__file__).with_suffix(".json")
MODELS = [name for name in Library().names("model") if not name.startswith("lesson6/")]
EXPORTS = RECORD.with_stem("every_export")
BACKENDS = ("numpy", "torch", "jax", "keras", "keras-torch", "keras-jax")


def run(model: str, backend: str, path: str, size: str, seed: int) -> dict[str, Any]:
    """What came of all checks in both dtypes: cells by verdict, and what was said of each fault."""
    name, _, number = size.partition("=")
    sizes = {name: int(number)} if size else {}
    request = Request(
        (model,),
        (backend,),
        paths=(path,),
        sizes=sizes,
        seed=seed,
        timeout=3600.0,
        start_timeout=3600.0,
    )
    began = time.monotonic()
    with Engine(request) as engine:
        report = engine.run()
    findings = [(result.cell, f) for result in report.results for f in result.findings]
    return {
        "verdicts": dict(Counter(result.verdict for result in report.results)),
        "versions": sorted({r.version for r in report.results if r.version}),
        "seconds": round(time.monotonic() - began, 1),
        "findings": len(findings),
        "comparisons": sum(f.comparisons for _, f in findings),
        "silent": sum(f.verdict == "not-applicable" for _, f in findings),
        "known": [f"{c}: {f.check}" for c, f in findings if f.verdict == "known-difference"],
        "faults": [f"{c}: {f.check}: {f.detail}" for c, f in findings if f.verdict not in PASSING],
        "dearest": _dearest(findings),
    }


def _has(model: str, size: str) -> bool:
    """Whether a size is one of the model's, or of what it reads."""
    name, spec = size.partition("=")[0], harness.load(model)
    types = map(spec.program().type_of, spec.program().inputs)
    read = {str(dim) for type_ in types for dim in type_.shape}
    return not name or name in spec.model.sizes or name in read


def _dearest(findings: Sequence[tuple[Any, Any]]) -> dict[str, float]:
    """The checks that took the longest, in seconds over both dtypes."""
    taken: Counter[str] = Counter()
    for _, finding in findings:
        taken[finding.check] += finding.seconds
    return {check: round(seconds, 1) for check, seconds in taken.most_common(5)}


@click.group()
def main() -> None:
    """Models that ship, on every backend."""


@main.command()
@click.option("--backend", "backends", multiple=True, required=True)
@click.option("--model", "models", multiple=True, type=click.Choice(MODELS))
@click.option("--path", default="native", type=click.Choice(PATHS))
@click.option("--size", "sizes", multiple=True, help="NAME=NUMBER, one at a time.")
@click.option("--seed", "seeds", multiple=True, type=int)
@click.option("--record", type=click.Path(path_type=Path), default=RECORD)
def measure(
    backends: tuple[str, ...],
    models: tuple[str, ...],
    path: str,
    sizes: tuple[str, ...],
    seeds: tuple[int, ...],
    record: Path,
) -> None:
    """Run what the record lacks, and add it one by one."""
    wanted = [
        (model, backend, path, size, seed)
        for backend in backends
        for size in sizes or ("",)
        for seed in seeds or (0,)
        for model in models or MODELS
        if _has(model, size)
    ]
    for model, backend, path_, size, seed in wanted:
        key = f"{model} {backend} {path_} {size or '-'} {seed}"
        known = json.loads(record.read_text()) if record.exists() else {}
        if key in known:
            continue
        found = run(model, backend, path_, size, seed)
        write_whole(record, (json.dumps({**known, key: found}, indent=1) + "\n").encode())
        click.echo(f"{key}: {found['verdicts']} {found['seconds']} s {found['dearest']}")
        for fault in found["faults"]:
            click.echo(f"  {fault}"[:600])


@main.command()
@click.argument("others", nargs=-1, type=click.Path(exists=True, path_type=Path))
def join(others: tuple[Path, ...]) -> None:
    """Add what other records hold to the record."""
    known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for other in others:
        known |= json.loads(other.read_text())
    write_whole(RECORD, (json.dumps(dict(sorted(known.items())), indent=1) + "\n").encode())


@main.command()
def page() -> None:
    """Write the tables of docs/models.md from the records."""
    record = json.loads(RECORD.read_text())
    put("models.md", "every model", "\n".join([*_by_model(record), "", *_varied(record), ""]))
    put("models.md", "every export", "\n".join([*_exports(), ""]))


def _by_model(record: Mapping[str, Any]) -> list[str]:
    """A row for each model, at its own sizes and seed 0, by its native path."""
    rows = {m: [record.get(f"{m} {b} native - 0") for b in BACKENDS] for m in MODELS}
    shown = {model: list(map(_place, found)) for model, found in rows.items()}
    plain = [model for model, found in shown.items() if set(found) == {"2 of 2"}]
    runs = list(record.values())
    faults = [fault for one in runs for fault in one["faults"]]
    cells = sum(sum(one["verdicts"].values()) for one in runs)
    total = sum(one["comparisons"] for one in runs)
    lines = [
        f"In {cells:,} cells with {total:,} comparisons, there are {len(faults)} mismatches.",
        "These numbers include the cells at other sizes in the last table.",
        *(f"- {fault}" for fault in faults),
        "",
        "These models pass in both dtypes on all six backends: "
        f"{', '.join(f'`{model}`' for model in plain)}.",
        "This table has the other models:",
        "",
        "| model | " + " | ".join(BACKENDS) + " |",
        "|---|" + "---|" * len(BACKENDS),
    ]
    for model, found in shown.items():
        if model not in plain:
            lines.append(f"| `{model}` | " + " | ".join(found) + " |")
    return lines


def _place(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "not run"
    known = f" ({len(one['known'])} known)" if one["known"] else ""
    return _passing(Counter(one["verdicts"])) + known


def _varied(record: Mapping[str, Any]) -> list[str]:
    """A row for each path, size and seed besides: cells that pass, of all, by backend."""
    cells: dict[str, dict[str, Counter[str]]] = {}
    for key, one in record.items():
        _, backend, path, size, seed = key.split()
        if (path, size, seed) != ("native", "-", "0"):
            words = [f"path {path}"] if path != "native" else []
            words += [f"`--size {size}`"] if size != "-" else []
            words += [f"seed {seed}"] if seed != "0" else []
            row = cells.setdefault(", ".join(words), {})
            row.setdefault(backend, Counter()).update(one["verdicts"])
    backends = [b for b in BACKENDS if any(b in row for row in cells.values())]
    lines = [f"| {' | '.join(['at other sizes', *backends])} |", "|---|" + "---|" * len(backends)]
    for words, row in sorted(cells.items()):
        found = [_passing(row[b]) if b in row else "" for b in backends]
        lines.append(f"| {words} | " + " | ".join(found) + " |")
    return lines


def _passing(verdicts: Counter[str]) -> str:
    passing = sum(count for verdict, count in verdicts.items() if verdict in PASSING)
    return f"{passing} of {verdicts.total()}"


def _exports() -> list[str]:
    """A row for each format: the range of digits in float32 and float64; then what is wrong."""
    record = json.loads(EXPORTS.read_text())
    right = {
        key: one["agrees"] and one["returned"] for key, one in record.items() if "digits" in one
    }
    lines = ["| format | float32 | float64 |", "|---|---|---|"]
    for format_ in dict.fromkeys(key.split()[1] for key in record):
        ranges = []
        for dtype in ("float32", "float64"):
            keys = [key for key in right if key.endswith(f" {format_} {dtype}") and right[key]]
            digits = [record[key]["digits"] for key in keys]
            ranges.append(f"{min(digits)} to {max(digits)}" if digits else "")
        lines.append(f"| {format_} | {' | '.join(ranges)} |")
    wrong = [key for key in record if not right.get(key)]
    return [*lines, *(f"- {key}: {record[key].get('fault', 'differs')}" for key in wrong)]


if __name__ == "__main__":
    main()
