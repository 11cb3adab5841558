"""The table of docs/plans.md from the record of ablation.py: what each pass is worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "plans.md"
BEGIN, END = "<!-- ablation: begin -->", "<!-- ablation: end -->"
# A step that takes so many times as long without a pass: the pass pays on that system.
PAYS, SYSTEMS = 1.03, 2

Cells = Mapping[str, Mapping[str, Any]]


def ratios(cells: Cells, name: str) -> dict[str, list[float]]:
    """By cell: how many times as long a step takes without the pass, and its quartiles."""
    found = {key: cell["ratios"] for key, cell in cells.items() if name in cell["ratios"]}
    return {key: some[name] or [1.0, 1.0, 1.0] for key, some in found.items()}


def systems(cells: Cells, name: str) -> list[str]:
    """The systems on which a pass pays: in one of their cells at least, and not by luck."""
    found = ratios(cells, name).items()
    return sorted({key.split()[0] for key, (middle, low, _) in found if middle >= PAYS and low > 1})


def pays(record: Mapping[str, Any], name: str) -> bool:
    """Whether a pass pays on two systems of one backend at least."""
    return any(len(systems(cells, name)) >= SYSTEMS for cells in record["cells"].values())


def table(record: Mapping[str, Any]) -> str:
    """Passes in rows, backends in columns; passes that were switched off together come last."""
    backends = list(record["cells"])
    lines = [
        f"| pass | {' | '.join(backends)} |",
        f"|---|{'---|' * len(backends)}",
    ]
    names = [n for some in record["cells"].values() for c in some.values() for n in c["ratios"]]
    for name in sorted(dict.fromkeys(names), key=lambda name: name.count("+")):
        texts = [_cell(record["cells"][backend], name) for backend in backends]
        shown = name.replace(", ", "`, `").replace("+", "` and `")
        lines.append(f"| `{shown}` | {' | '.join(texts)} |")
    return "\n".join(lines)


def _cell(cells: Cells, name: str) -> str:
    found = [middle for middle, _, _ in ratios(cells, name).values()]
    if not found:
        return ""
    return f"{len(systems(cells, name))} ({min(found):.2f} to {max(found):.2f})"


def text(lesson: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    """Return both tables, and sentences about the measurement."""
    return f"""The *speed ratio* of an optimisation pass is the time of a step without the pass,
divided by the time with the pass. Each model has a speed ratio for training and one for forward
passes. Each entry has the number of models with a speed ratio of at least {PAYS:.2f} (lower
quartile above 1), and in parentheses the smallest and largest speed ratio.

If a pass does not change the plan, its speed ratio is 1. If the same plan is measured twice, the
speed ratio differs from 1 by up to 0.04. A pass is kept if it saves time on at least {SYSTEMS}
models with the same backend.

This table is for the twelve systems of Lesson 6 at batch 64, with one pass switched off at a time.
Times are processor times of one thread in float32, on {_conditions(lesson)}

{table(lesson)}

The next table is for passes with small speed ratios. The models are Lesson 6, 16 other models at
batch 8, and eight of these 16 models at batch 64. The machine is {_conditions(models)}

{table(models)}"""


def _conditions(record: Mapping[str, Any]) -> str:
    load = max(high for _, high in record["load"].values())
    versions = ", ".join(f"{n} {v}" for n, v in sorted(record["versions"].items()))
    cpu = record["machine"].get("cpu", "a CPU")
    return f"{cpu} (system load at most {load:.1f}) with {versions}."


def rewrite(lesson: Mapping[str, Any], models: Mapping[str, Any]) -> None:
    """Put the tables between their markers.

    Raises:
        ValueError: the page has no markers.
    """
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text(lesson, models)}\n{END}{after}")
