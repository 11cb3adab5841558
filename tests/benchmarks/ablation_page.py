"""The table of docs/plans.md from the record of ablation.py: what each pass is worth."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
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


def table(record: Mapping[str, Any], passes: Sequence[str]) -> str:
    """Passes in rows, backends in columns."""
    backends = list(record["cells"])
    lines = [
        f"| pass | {' | '.join(backends)} |",
        f"|---|{'---|' * len(backends)}",
    ]
    found = [n for some in record["cells"].values() for c in some.values() for n in c["ratios"]]
    for name in dict.fromkeys((*passes, *found)):
        gone = "" if name in passes else ", gone since"
        texts = [_cell(record["cells"][backend], name) for backend in backends]
        lines.append(f"| `{name.replace(', ', '`, `')}`{gone} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _cell(cells: Cells, name: str) -> str:
    found = [middle for middle, _, _ in ratios(cells, name).values()]
    if not found:
        return ""
    middle, count = statistics.median(found), len(systems(cells, name))
    return f"{middle:.2f}, {count} ({min(found):.2f} to {max(found):.2f})"


def text(record: Mapping[str, Any], passes: Sequence[str]) -> str:
    """The table, and how it was made."""
    load = max(high for _, high in record["load"].values())
    versions = ", ".join(f"{n} {v}" for n, v in sorted(record["versions"].items()))
    cpu = record["machine"].get("cpu", "a CPU")
    return f"""How many times as long a step takes without a pass: the median over all systems, in
training and forward; on how many of the 12 systems it is {PAYS:.2f} times or more in one of them;
the least and the most. At batch 64; with the passes that gave least, on numpy and torch, at 1024
too. A plan that is the same without the pass counts as 1. A pass that pays on fewer than {SYSTEMS}
systems on every backend goes. The same plan twice differed by up to 0.04 (`tiling` at batch 64).

Made by `python tests/benchmarks/ablation.py` (`measure`, then `page`) in float32, in processor
time of one thread of {cpu}; {versions};
load of the machine at most {load:.1f}.

{table(record, passes)}"""


def rewrite(record: Mapping[str, Any], passes: Sequence[str]) -> None:
    """Put the table between its markers.

    Raises:
        ValueError: the page has no markers.
    """
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text(record, passes)}\n{END}{after}")
