"""docs/performance.md and ratios.csv from the record of ratios.py: targets, ratios, and limits.

Lesson 6 and the models have separate tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

from peaks import PEAK, told
from ratio_record import letter, of_machine
from ratio_systems import MODELS, MODES, NUMPY_MODELS, REAL, sizes_of
from ratio_targets import (
    LEAST,
    LEAST_DERIVED,
    LEAST_NUMPY,
    Cell,
    Record,
    Target,
    cells,
    outcome,
    targets,
    thousands,
    untimed,
)

from harness.timing.rates import spread

NOTES = Path(__file__).with_name("performance_notes.md")
MODEL_NOTES = Path(__file__).with_name("performance_model_notes.md")
REAL_NOTES = Path(__file__).with_name("performance_real_notes.md")
# Shares of a step from which on something is said to limit it.
MOST_OF, MUCH_OF = 0.6, 0.3


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
    """Return the page: findings, targets, and a table of ratios for each mode."""
    everything = cells(record)
    usual = [c for c in everything if not c.path and c.backend != "python"]
    models = [c for c in usual if c.of_models]
    lesson6 = [c for c in usual if not c.group]
    real = [c for c in usual if c.group == "real sizes"]
    parts = [_head(record, usual) + _untimed(usual), _targets(record), _ratios(lesson6)]
    if derived := [c for c in everything if c.path == "derived"]:
        parts.append(_derived(derived))
    parts.append(NOTES.read_text())
    if models:
        parts += ["## Models\n\n" + _models(), _ratios(models), MODEL_NOTES.read_text()]
    if real:
        parts += [_real(real), REAL_NOTES.read_text()]
    parts += [_machines(record), _peaks(record)]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def rows(record: Record) -> Iterator[tuple[str, ...]]:
    """Yield the lines of ``ratios.csv``: a heading, then each cell of the record."""
    yield (
        *("system", "backend", "mode", "batch", "asked path", "machine", "load"),
        *("spec, thousand/s", "by hand, thousand/s", "best by hand", "ratio", "spread"),
        *("path", "steps a call", "limited by"),
    )
    for cell in cells(record):
        load = cell.pair.get("load")
        where = (cell.system, cell.backend, cell.mode, str(cell.batch), cell.path)
        where += (letter(cell.pair["machine"]), "" if load is None else f"{load:.1f}")
        if not cell.measured:
            yield (*where, *[""] * 7, outcome(cell.pair))
            continue
        ours, native = cell.pair["ours"], cell.by_hand[cell.best]
        wide = sum(_relative(side["seconds"]) for side in (ours, native))
        speeds = (thousands(side).replace(",", "") for side in (ours, native))
        figures = (*speeds, cell.best, f"{cell.ratio:.2f}", f"{wide:.0%}")
        yield (*where, *figures, cell.ran, str(ours["many"]), limit(cell))


def _head(record: Record, usual: Sequence[Cell]) -> str:
    rounds = " or ".join(str(n) for n in sorted({m["rounds"] for m in record["machines"]}))
    return f"""# Speed relative to hand-written code

This page compares each spec on each backend with the fastest hand-written code for the same
framework (in `tests/benchmarks/native/`). The *ratio* is the spec's speed divided by the speed of
this code. If the ratio is above 1, the spec is faster.

{_findings(usual)}

On this page, a cell is one model on one backend, in training or in a forward pass, at one batch
size. `python tests/benchmarks/ratios.py measure` stores the measured times in
[tests/benchmarks/ratios.json](../tests/benchmarks/ratios.json). From these times,
`python tests/benchmarks/ratios.py page` writes this page and a table of all cells,
[tests/benchmarks/ratios.csv](../tests/benchmarks/ratios.csv).

The hand-written code uses the framework's layers, fused if possible, and the framework's gradient.
The torch code also runs with `torch.compile` (in Lesson 6 as a loop over RNN cells). Forward passes
of Lesson 6 also run in onnxruntime.

The spec and each hand-written program run in separate processes, in float32 on the CPU of one
[machine](#machines), with the same batches and parameters. The oracle checks all results. After a
warm-up, {rounds} rounds time each process once, in shuffled order. Speeds are medians over the
rounds.
"""


def _findings(usual: Sequence[Cell]) -> str:
    """Return a line for each backend: how often the spec is at least as fast, and the range."""
    lines = ["| backend | cells | at least as fast | lowest ratio | median | highest |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for backend in dict.fromkeys(c.backend for c in usual):
        own = [c for c in usual if c.backend == backend]
        ratios = [c.ratio for c in own if c.measured] or [0.0]
        fast = sum(round(ratio, 2) >= 1 for ratio in ratios)
        figures = " | ".join(f"{f(ratios):.2f}" for f in (min, median, max))
        lines.append(f"| {backend} | {len(own)} | {fast / len(own):.0%} | {figures} |")
    return "\n".join(lines)


def _machines(record: Record) -> str:
    lines = ["## Machines", "", "| | machine | pairs |", "|---|---|---:|"]
    by_versions: dict[str, list[str]] = {}
    for place, found in enumerate(record["machines"]):
        cpu = f"{found['threads']} threads of {found['machine'].get('cpu', 'a CPU')}"
        pairs = len(of_machine(record["pairs"], place))
        lines.append(f"| {letter(place)} | {cpu} | {pairs} |")
        packages = ", ".join(f"{n} {v}" for n, v in sorted(found["versions"].items()))
        by_versions.setdefault(packages, []).append(letter(place))
    for packages, letters in by_versions.items():
        lines += ["", f"Versions on {', '.join(letters)}: {packages}."]
    return "\n".join(lines)


def _untimed(usual: Sequence[Cell]) -> str:
    """Return what the record lacks: ratios compare with what the record has."""
    lacking = Counter(n for c in usual for n in untimed(c.pair, c.backend, c.mode, c.spec))
    if not lacking:
        return ""
    listed = ", ".join(f"{name} in {count} cells" for name, count in sorted(lacking.items()))
    return f"\nNot timed yet, and in no ratio: {listed}.\n"


def _targets(record: Record) -> str:
    every = list(targets(record))
    lines = [
        "## Targets\n\nWith the target `torch: at least 0.97`, each cell on torch must reach the\n"
        "ratio 0.97. Targets for `models` apply to the [shipped models](#models), targets for\n"
        "`real sizes` to [models of usual size](#real-sizes), all others to Lesson 6. A **bold**\n"
        "ratio misses its target.",
        "",
        "| target | measured | |",
        "|---|---|---|",
    ]
    lines += [f"| {t.text} | {t.found} | {t.verdict}{_where(t)} |" for t in every]
    return "\n".join(lines)


def _where(target: Target) -> str:
    """Return the first three misses of a target; the CSV file has all cells. A miss that says no
    more than the measured number is left out."""
    misses = target.misses
    if [*misses] in ([], [target.found]):
        return ""
    more = f"; and {len(misses) - 3} more" if len(misses) > 3 else ""
    return f": {'; '.join(misses[:3])}{more}"


def _models() -> str:
    return f"""The [shipped models](models.md) run at the small sizes of their specs. numpy has no
layers, so we wrote numpy code by hand for {_listed(NUMPY_MODELS)} only. Batch sizes and time
steps:

{_batches()}
"""


def _batches() -> str:
    every: dict[str, list[str]] = {}
    for name, sizes in MODELS.items():
        time = f", {sizes.time} steps" if sizes.time else ""
        every.setdefault(f"batch {sizes.small} and {sizes.large}{time}", []).append(f"`{name}`")
    return "\n".join(f"- {sizes}: {', '.join(names)}" for sizes, names in every.items())


def _listed(names: Iterable[str]) -> str:
    *most, last = (f"`{name}`" for name in sorted(names))
    return f"{', '.join(most)} and {last}"


def _spec(name: str) -> str:
    """Return the spec of a pair's name."""
    return name.partition("[")[0]


def _peaks(record: Record) -> str:
    """Return the speed of the fastest products on each machine, at the sizes of Lesson 6."""
    lesson6 = {
        name: pair for name, pair in record["pairs"].items() if _spec(name) not in {*MODELS, *REAL}
    }
    parts = [
        (letter(place), told(of_machine(lesson6, place)))
        for place in range(len(record["machines"]))
    ]
    return PEAK + "\n".join(
        f"Peaks on machine {name}, in GFLOP/s:\n\n{words}" for name, words in parts if words
    )


def _ratios(own: Sequence[Cell]) -> str:
    """Return the ratios of training, then of a forward pass: a column for each backend."""
    return "\n".join(_of_mode(mode, [c for c in own if c.mode == mode]) for mode in MODES)


def _of_mode(mode: str, own: Sequence[Cell]) -> str:
    if not own:
        return ""
    of_models = own[0].of_models
    backends = list(dict.fromkeys(c.backend for c in own))
    batches = "the small and the large batch size" if of_models else "batch sizes 64 and 1024"
    title = "Training" if mode == "train" else "Forward pass"
    lines = [f"### {title}{' of models' if of_models else ''}", ""]
    if mode == MODES[0]:
        lines += [f"Each entry gives the ratios at {batches}, also in the next table.", ""]
    lines += [f"| {' | '.join(['system', *backends])} |", "|---|" + "---:|" * len(backends)]
    found = {(c.spec, c.backend, c.batch): c for c in own}
    for spec in dict.fromkeys(c.spec for c in own):
        sizes = sizes_of(spec)
        row = [
            ", ".join(
                _ratio(found[key])
                for size in (sizes.small, sizes.large)
                if (key := (spec, backend, size)) in found
            )
            for backend in backends
        ]
        lines.append(f"| {spec.rpartition('/')[2]} | {' | '.join(row)} |")
    return "\n".join([*lines, ""])


def _real(own: Sequence[Cell]) -> str:
    """Return the ratios of speed and of memory at real sizes: a line for each model and mode."""
    backends = list(dict.fromkeys(c.backend for c in own))
    lines = [
        "## Real sizes",
        "",
        "An entry gives the ratio of the speeds, and after it the peak memory of the spec's",
        "process divided by that of the fastest hand-written code.",
        "",
        f"| {' | '.join(['model', 'sizes', 'mode', *backends])} |",
        "|---|---|---|" + "---:|" * len(backends),
    ]
    found = {(c.spec, c.mode, c.backend): c for c in own}
    for name, mode in dict.fromkeys((c.spec, c.mode) for c in own):
        real = REAL[name]
        sizes = f"batch {real.batch}" + (f", time {real.time}" if real.time else "")
        row = [
            f"{_ratio(cell)}, {cell.memory_ratio:.2f}" if cell else "not measured"
            for cell in (found.get((name, mode, backend)) for backend in backends)
        ]
        lines.append(f"| {name} | {sizes} | {mode} | {' | '.join(row)} |")
    return "\n".join([*lines, ""])


def _ratio(cell: Cell) -> str:
    if not cell.measured:
        return "no speed"
    least = LEAST_NUMPY if cell.backend == "numpy" else LEAST
    text = f"{cell.ratio:.2f}"
    return text if float(text) >= least else f"**{text}**"


def _derived(own: Sequence[Cell]) -> str:
    lines = [
        "### The derived gradient",
        "",
        "On the path `derived`, the harness derives the gradient. This table compares the path",
        "with hand-written layers that use the framework's gradient, and with the fastest",
        "hand-written code. A fused layer can be faster than this path: it fuses the gradient too.",
        "",
        "| cell | relative to layers | relative to the fastest | target relative to layers |",
        "|---|---:|---:|---|",
    ]
    for cell in own:
        least = LEAST_DERIVED[cell.backend]
        holds = f"{least}: {'holds' if round(cell.layers_ratio, 2) >= least else 'missed'}"
        best = f"{cell.ratio:.2f} ({cell.best})" if cell.measured else "no speed"
        lines.append(f"| {cell} | {cell.layers_ratio:.2f} | {best} | {holds} |")
    return "\n".join([*lines, ""])


def _relative(seconds: Sequence[float]) -> float:
    found = spread(seconds)
    return (found["q3"] - found["q1"]) / 2 / found["median"]
