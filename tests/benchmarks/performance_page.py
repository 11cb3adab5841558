"""docs/performance.md from the record of ratios.py: targets, ratios, and what limits each cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from peaks import told
from ratio_targets import (
    FAILURE,
    LEAST,
    LEAST_DERIVED,
    LEAST_NUMPY,
    Cell,
    Record,
    cells,
    missed,
    outcome,
    targets,
    thousands,
    untimed,
)

from harness.bench.figures import spread

NOTES = Path(__file__).with_name("performance_notes.md")
COLUMNS = (("train", 64), ("train", 1024), ("forward", 64), ("forward", 1024))
# Shares of a step from which on something is said to limit it.
MOST_OF, MUCH_OF = 0.6, 0.3
# What the derived gradient was said to be worth.
CLAIM = LEAST_DERIVED["torch"]


def limit(cell: Cell) -> str:
    """What takes most of a step's time, from what was measured beside it."""
    ours = cell.pair["ours"]
    products, memory = ours["share_of_own_peak"], ours["share_of_bandwidth"]
    if products >= MOST_OF:
        return f"matrix products ({products:.0%} of the peak at their size)"
    if memory >= MUCH_OF:
        return f"memory: parameters and moments ({memory:.0%} of the bandwidth)"
    if products >= MUCH_OF:
        return f"products ({products:.0%} of their peak) and element-wise work"
    return f"element-wise work and calls (products {products:.0%} of their peak)"


def render(record: Record) -> str:
    """The whole page."""
    everything = cells(record)
    parts = [_head(record), _targets(record), "## Ratios\n\n" + _legend()]
    usual = [c for c in everything if not c.path and c.backend != "python"]
    parts[0] += _untimed(usual)
    backends = dict.fromkeys(c.backend for c in usual)
    parts += [_ratios(b, [c for c in usual if c.backend == b]) for b in backends]
    for table, own in (
        (_derived, [c for c in everything if c.path == "derived"]),
        (_loop, [c for c in everything if c.backend == "python"]),
    ):
        if own:
            parts.append(table(own))
    parts.append(NOTES.read_text())
    parts.append("## Every cell\n\n" + told(record["pairs"]) + "\n" + _details(everything))
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _head(record: Record) -> str:
    found = record["environment"]
    machine = found["machine"]
    versions: dict[str, str] = {}
    for worker in found["workers"].values():
        versions |= worker["versions"]
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    cpu = machine.get("cpu", "a CPU")
    return f"""# How near to hand-written code

Made by `python tests/benchmarks/ratios.py page` from the record that
`python tests/benchmarks/ratios.py measure` writes (`tests/benchmarks/ratios.json`).

Each backend runs the neutral spec; beside it, each in a process of its own, runs what a good user
of the same framework writes for the same system (`tests/benchmarks/native/`): its layers, fused
where it has fused ones, with its own gradient; for torch also loops over cells through
`torch.compile`, and forward the same model in onnxruntime. All are checked against the oracle, get
the same batches and parameters, warm up until steady and are then timed in {found["rounds"]} rounds
of shuffled order. A ratio is that of the medians of characters per second, to the best of what is
beside the spec: above 1, the spec is faster than all of it.

Measured in float32 on {found["threads"]} threads of {cpu}.
{listed}.
No GPU was at hand: there are no GPU figures here.
"""


def _untimed(usual: Sequence[Cell]) -> str:
    """What the record has not yet: ratios there are to what it has."""
    lacking = Counter(n for c in usual for n in untimed(c.pair, c.backend, c.mode))
    if not lacking:
        return ""
    listed = ", ".join(f"{name} in {count} cells" for name, count in sorted(lacking.items()))
    return f"\nNot timed yet, and in no ratio: {listed}.\n"


def _targets(record: Record) -> str:
    lines = ["## What must hold", "", "| target | found | |", "|---|---|---|"]
    lines += [f"| {t.text} | {t.found} | {t.verdict} |" for t in targets(record)]
    misses = missed(record)
    if misses:
        lines += ["", "Missed:", "", *(f"- {line}" for line in misses)]
    return "\n".join(lines)


def _legend() -> str:
    return (
        "In brackets the path that ran: `n` the framework's own layers and gradient, `e` its own\n"
        "gradient of the equations, `d` the derived gradient as an optimised plan. A forward\n"
        "pass has no gradient: `d` is the plan there, `e` the same with all products in place.\n"
        "A name behind them is that of the best hand-written code where it is not the layers.\n"
        f"**Bold** is below the target, ***bold italics*** below {FAILURE}.\n"
    )


def _ratios(backend: str, own: Sequence[Cell]) -> str:
    lines = [f"### {backend}", ""]
    lines.append("| system | " + " | ".join(f"{mode} {batch}" for mode, batch in COLUMNS) + " |")
    lines.append("|---|" + "---:|" * len(COLUMNS))
    by_place = {(c.system, c.mode, c.batch): c for c in own}
    for system in dict.fromkeys(c.system for c in own):
        row = (by_place.get((system, mode, batch)) for mode, batch in COLUMNS)
        lines.append(f"| {system} | " + " | ".join(_ratio(c) if c else "" for c in row) + " |")
    return "\n".join(lines)


def _ratio(cell: Cell) -> str:
    if not cell.measured:
        return "no speed"
    least = LEAST_NUMPY if cell.backend == "numpy" else LEAST
    text = f"{cell.ratio:.2f}"
    mark = "" if float(text) >= least else "**" if cell.ratio >= FAILURE else "***"
    best = "" if cell.best == "layers" else f" {cell.best}"
    return f"{mark}{text}{mark} ({cell.ran[0]}){best}"


def _derived(own: Sequence[Cell]) -> str:
    lines = [
        "### The derived gradient",
        "",
        "Beside hand-written layers with the framework's own gradient, whichever path is the",
        "faster, and beside the best hand-written code. The last column says where it is at",
        f"least {CLAIM} times as fast as the layers. It need not be where a framework has a fused",
        "layer: that has a backward pass which was written beforehand, too.",
        "",
        f"| cell | to the layers | to the best | at least {CLAIM} times the layers |",
        "|---|---:|---:|---|",
    ]
    for cell in own:
        holds = "holds" if round(cell.layers_ratio, 2) >= CLAIM else "does not hold"
        best = f"{cell.ratio:.2f} ({cell.best})" if cell.measured else "no speed"
        lines.append(f"| {cell} | {cell.layers_ratio:.2f} | {best} | {holds} |")
    return "\n".join(lines)


def _loop(own: Sequence[Cell]) -> str:
    lines = [
        "### The notebook's loop",
        "",
        "numpy beside the notebook's Pure Python loop, a character after the other.",
        "",
        "| cell | ratio | thousand/s | by hand |",
        "|---|---:|---:|---:|",
    ]
    for cell in own:
        name = str(cell).replace(" on python,", " on numpy,")
        sides = [cell.pair[side] for side in ("ours", "native")]
        speeds = [thousands(side) if cell.measured else "" for side in sides]
        lines.append(f"| {name} | {cell.ratio:.2f} | {speeds[0]} | {speeds[1]} |")
    return "\n".join(lines)


def _details(everything: Sequence[Cell]) -> str:
    lines = [
        "Thousand characters a second; the spread is half the range between the quartiles, of both",
        "sides together. By hand is the best, with its name where it is not the layers.",
        "",
        "| cell | spec | by hand | ratio | spread | path | steps a call | limited by |",
        "|---|---:|---:|---:|---:|---|---:|---|",
    ]
    for cell in everything:
        if not cell.measured:
            lines.append(f"| {cell} | {outcome(cell.pair)} | | | | | | |")
            continue
        ours, native = cell.pair["ours"], cell.by_hand[cell.best]
        best = "" if cell.best == "layers" else f" {cell.best}"
        wide = sum(_relative(side["seconds"]) for side in (ours, native))
        lines.append(
            f"| {cell} | {thousands(ours)} | {thousands(native)}{best} | {cell.ratio:.2f} "
            f"| ±{wide:.0%} | {cell.ran} | {ours['many']} | {limit(cell)} |"
        )
    return "\n".join(lines)


def _relative(seconds: Sequence[float]) -> float:
    found = spread(seconds)
    return (found["q3"] - found["q1"]) / 2 / found["median"]
