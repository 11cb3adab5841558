"""A run of checks as GitHub shows it: errors beside lines of specs, and the summary of a step."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.checking.changes import CellChange
from harness.checking.events import Report
from harness.checking.pairs import statements
from harness.checking.report import cell_text, summary, title
from harness.files.complaints import KeyPath
from harness.language.shelf import Shelf
from harness.output import github
from harness.output.markdown import escaped, sentences, table
from harness.results.cell import CellResult
from harness.results.findings import PASSING
from harness.runs.compared import RunChanges

# Words of a location that may be a layer: after these words, and before the dot of a tensor.
_NAMED = re.compile(r"(?<=\blayer )\w+|(?<=\bof )\w+|(?<=\bin )\w+|\w+(?=\.\w)")


def alerts(report: Report, specs: Shelf, compared: RunChanges | None = None) -> list[str]:
    """What fails, beside the line where it goes wrong or else the model's; an error if it is worse
    than before, where that is known."""
    failing = {r.cell: r for r in report.results if r.verdict not in PASSING}
    found: list[str] = []
    if compared is not None:
        for change in compared.changes:
            if isinstance(change, CellChange) and change.worse:
                failed = failing.pop(change.cell, None)
                at = places(failed, specs) if failed else ()
                found.append(github.annotation(compared.what, str(change), at))
    level = "error" if compared is None else "warning"
    for cell, result in failing.items():
        at = places(result, specs)
        found.append(
            github.annotation(f"{cell}: {result.verdict}", "\n".join(words(result)), at, level)
        )
    return github.few(found)


def words(result: CellResult) -> list[str]:
    """Where a cell goes wrong, who is at fault, and what its first failing check saw."""
    fault = result.first_fault
    seen = f"{fault.check}: {fault.verdict}: {fault.detail}" if fault else ""
    return [*filter(None, (result.location, str(result.blame or ""), seen))]


def places(result: CellResult, specs: Shelf) -> Iterator[str]:
    """``file:line`` of where a cell goes wrong, of the layer of the model that does, and of the
    model's name."""
    yield from re.findall(r"\(([^()]+:\d+)\)", result.location)
    model = specs[result.cell.spec].definition
    paths: list[KeyPath] = [("layers", n, result.wrong_attribute) for n in result.wrong_layers]
    named = _NAMED.findall(result.location)
    paths += [("layers", name) for name in (*result.wrong_layers, *named)]
    keys = model.document.nodes.keys
    for place in (*(keys[path] for path in paths if path in keys), model.name[1]):
        yield f"{place.file}:{place.line}"


def markdown(report: Report, compared: RunChanges | None = None) -> str:
    """The summary of a run: what came of it, the table of systems by backends, what fails."""
    found = [f"### harness check: {escaped(summary(report))}", ""]
    if compared is not None:
        found += [compared.markdown(), ""]
    found += [escaped(title(report)), "", _table(report.results), ""]
    for result in report.results:
        if result.verdict not in PASSING:
            told = escaped(f"{result.cell}: {result.verdict}")
            found.append(f"- **{told}**: {escaped(sentences(words(result)))}")
    found += ["", *(f"- {escaped(text)}" for text in statements(report.pairs, report.results))]
    return "\n".join(found) + "\n"


def _table(results: Sequence[CellResult]) -> str:
    backends = list(dict.fromkeys(r.cell.backend for r in results))
    rows: dict[str, dict[str, list[str]]] = {}
    for result in results:
        row = rows.setdefault(result.cell.spec, {})
        row.setdefault(result.cell.backend, []).append(cell_text(result))
    return table(
        ["system", *backends],
        [[spec, *(" / ".join(row.get(b, ["-"])) for b in backends)] for spec, row in rows.items()],
    )
