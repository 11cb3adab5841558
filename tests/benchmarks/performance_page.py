"""docs/performance.md from the record of ratios.py: targets, ratios, and what limits each cell.

Lesson 6 and the models have tables of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from peaks import PEAK, told
from ratio_record import letter, of_machine
from ratio_systems import LESSON6, MODELS, NUMPY_MODELS, sizes_of
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

from harness.timing.figures import spread

NOTES = Path(__file__).with_name("performance_notes.md")
MODEL_NOTES = Path(__file__).with_name("performance_model_notes.md")
# Shares of a step from which on something is said to limit it.
MOST_OF, MUCH_OF = 0.6, 0.3
# What the derived gradient was said to be worth.
# What the tables call the paths.
LETTERS = {
    "native": "n",
    "equations": "e",
    "derived": "d",
    "compiled": "c",
    "native-compiled": "nc",
}
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
    models = [c for c in usual if c.of_models]
    lesson6 = [c for c in usual if not c.of_models]
    parts[0] += _untimed(usual)
    parts += _by_backend(lesson6)
    for table, own in (
        (_derived, [c for c in everything if c.path == "derived"]),
        (_loop, [c for c in everything if c.backend == "python"]),
    ):
        if own:
            parts.append(table(own))
    parts.append(NOTES.read_text())
    if models:
        parts += ["## Models\n\n" + _models(), *_by_backend(models), MODEL_NOTES.read_text()]
    parts.append("## Every cell\n\n" + _peaks(record) + "\n" + _details(everything))
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _head(record: Record) -> str:
    of_models = any(_spec(name) in MODELS for name in record["pairs"])
    then = " Lesson 6 comes first,\nthen the [models](#models)." if of_models else ""
    rounds = " or ".join(str(n) for n in sorted({m["rounds"] for m in record["machines"]}))
    return f"""# How near to hand-written code

Made by `python tests/benchmarks/ratios.py page` from the record that
`python tests/benchmarks/ratios.py measure` writes (`tests/benchmarks/ratios.json`).

Each backend runs the neutral spec; beside it, each in a process of its own, runs what a good user
of the same framework writes for the same system (`tests/benchmarks/native/`): its layers, fused
where it has fused ones, with its own gradient; for torch also through `torch.compile` (of Lesson 6
loops over cells), and forward, of Lesson 6, the same model in onnxruntime. All are checked against
the oracle, get the same batches and parameters, warm up until steady and are then timed in
{rounds} rounds of shuffled order. A ratio is that of the medians of characters per second, to the
best of what is beside the spec: above 1, the spec is faster than all of it.{then}

Measured in float32. Both sides of a ratio ran at once on the same machine; the letter in the
[list of all cells](#every-cell) says on which. The load beside it is the machine's in the minute
before; a run that nothing disturbs makes about one of it itself.

{_machines(record)}

No GPU was at hand: there are no GPU figures here.
"""


def _machines(record: Record) -> str:
    lines = ["| | machine | versions | pairs |", "|---|---|---|---:|"]
    for place, found in enumerate(record["machines"]):
        cpu = found["machine"].get("cpu", "a CPU")
        versions = ", ".join(
            f"{name} {found['versions'][name]}" for name in sorted(found["versions"])
        )
        pairs = len(of_machine(record["pairs"], place))
        lines.append(
            f"| {letter(place)} | {found['threads']} threads of {cpu} | {versions} | {pairs} |"
        )
    return "\n".join(lines)


def _untimed(usual: Sequence[Cell]) -> str:
    """What the record has not yet: ratios there are to what it has."""
    lacking = Counter(n for c in usual for n in untimed(c.pair, c.backend, c.mode, c.spec))
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
        "gradient of the equations, `d` the derived gradient as an optimised plan, `c` that plan\n"
        "through the framework's compiler. A forward pass has no gradient: `d` is the plan there,\n"
        "`e` the same with all products in place. `nc` is `n` through the framework's compiler.\n"
        "A name behind them is that of the best hand-written code where it is not the layers.\n"
        f"**Bold** is below the target, ***bold italics*** below {FAILURE}.\n"
    )


def _models() -> str:
    return f"""The [models that ship](models.md) at their own sizes, which are small. By hand are
attention, convolutions and recurrent layers as the framework has them, fused where it has fused
ones; a step is compiled where its users compile it (`jax.jit`, Keras' `train_on_batch`, and
`torch.compile` beside torch's layers). numpy has no layers: there only {_listed(NUMPY_MODELS)} are
written by hand, with their derivative. Noise comes with the batch, on both sides. `t` is the length
of a sequence. A model without characters counts samples.
"""


def _listed(names: Iterable[str]) -> str:
    *most, last = (f"`{name}`" for name in sorted(names))
    return f"{', '.join(most)} and {last}"


def _spec(name: str) -> str:
    """The spec of a pair's name."""
    return name.partition("[")[0]


def _peaks(record: Record) -> str:
    """What the fastest products were on each machine, of the sizes of Lesson 6."""
    lesson6 = {name: pair for name, pair in record["pairs"].items() if _spec(name) not in MODELS}
    parts = [
        (letter(place), told(of_machine(lesson6, place)))
        for place in range(len(record["machines"]))
    ]
    return PEAK + "\n".join(f"On {name}: {words}" for name, words in parts if words)


def _by_backend(usual: Sequence[Cell]) -> list[str]:
    backends = dict.fromkeys(c.backend for c in usual)
    return [_ratios(b, [c for c in usual if c.backend == b]) for b in backends]


def _ratios(backend: str, own: Sequence[Cell]) -> str:
    """A table of a backend's ratios, with a column for each mode and size."""
    of_models = own[0].of_models
    heads = ("small", "large") if of_models else LESSON6[:2]
    columns = [(mode, place) for mode in ("train", "forward") for place in (0, 1)]
    first = "model | batches" if of_models else "system"
    names = " | ".join(f"{mode} {heads[place]}" for mode, place in columns)
    lines = [f"### {backend}{' on models' if of_models else ''}", "", f"| {first} | {names} |"]
    lines.append("|---|" + ("---|" if of_models else "") + "---:|" * len(columns))
    found = {(c.spec, c.mode, c.batch): c for c in own}
    for spec in dict.fromkeys(c.spec for c in own):
        sizes = sizes_of(spec)
        row = (found.get((spec, mode, sizes[place])) for mode, place in columns)
        name = spec.rpartition("/")[2]
        if of_models:
            time = f" of t{sizes.time}" if sizes.time else ""
            name = f"`{name}` | {sizes.small}, {sizes.large}{time}"
        lines.append(f"| {name} | " + " | ".join(_ratio(c) if c else "" for c in row) + " |")
    return "\n".join(lines)


def _ratio(cell: Cell) -> str:
    if not cell.measured:
        return "no speed"
    least = LEAST_NUMPY if cell.backend == "numpy" else LEAST
    text = f"{cell.ratio:.2f}"
    mark = "" if float(text) >= least else "**" if cell.ratio >= FAILURE else "***"
    best = "" if cell.best == "layers" else f" {cell.best}"
    return f"{mark}{text}{mark} ({LETTERS[cell.ran]}){best}"


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
        "Thousand characters (or samples) a second; the spread is half the range between the",
        "quartiles, of both sides together. By hand is the best, with its name where it is not",
        "the layers.",
        "",
        "| cell | on | load | spec | by hand | ratio | spread | path | steps a call | limited by |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|---|",
    ]
    for cell in everything:
        load = cell.pair.get("load")
        where = f"{letter(cell.pair['machine'])} | {'' if load is None else f'{load:.1f}'}"
        if not cell.measured:
            lines.append(f"| {cell} | {where} | {outcome(cell.pair)} | | | | | | |")
            continue
        ours, native = cell.pair["ours"], cell.by_hand[cell.best]
        best = "" if cell.best == "layers" else f" {cell.best}"
        wide = sum(_relative(side["seconds"]) for side in (ours, native))
        lines.append(
            f"| {cell} | {where} | {thousands(ours)} | {thousands(native)}{best} "
            f"| {cell.ratio:.2f} | ±{wide:.0%} | {cell.ran} | {ours['many']} | {limit(cell)} |"
        )
    return "\n".join(lines)


def _relative(seconds: Sequence[float]) -> float:
    found = spread(seconds)
    return (found["q3"] - found["q1"]) / 2 / found["median"]
