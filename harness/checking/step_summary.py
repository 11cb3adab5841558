"""A run of checks as GitHub shows it: errors beside lines of specs, and the summary of a step."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.checking.changes import CellChange
from harness.checking.events import Report
from harness.checking.first_difference import RIGHT_IF
from harness.checking.pairs import statements
from harness.checking.report import cell_text, summary, title
from harness.files.complaints import KeyPath
from harness.language.library import content
from harness.language.model import Spec
from harness.language.schema import Layer
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
                at = places(failed.location, specs, change.cell.spec) if failed else ()
                found.append(github.annotation(compared.what, str(change), at))
    level = "error" if compared is None else "warning"
    for cell, result in failing.items():
        at = places(result.location, specs, cell.spec)
        found.append(
            github.annotation(f"{cell}: {result.verdict}", "\n".join(words(result)), at, level)
        )
    return github.few(found)


def words(result: CellResult) -> list[str]:
    """Where a cell goes wrong, who is at fault, and what its first failing check saw."""
    fault = result.first_fault
    seen = f"{fault.check}: {fault.verdict}: {fault.detail}" if fault else ""
    return [*filter(None, (result.location, str(result.blame or ""), seen))]


def places(location: str, specs: Shelf, spec: str) -> Iterator[str]:
    """``file:line`` of where a cell goes wrong, of the layer of the model that does, and of the
    model's name."""
    yield from re.findall(r"\(([^()]+:\d+)\)", location)
    model = specs[spec].definition
    paths = [*_of_attribute(location, specs[spec])]
    paths += [("layers", name) for name in _NAMED.findall(location)]
    keys = model.document.nodes.keys
    for place in (*(keys[path] for path in paths if path in keys), model.name[1]):
        yield f"{place.file}:{place.line}"


def _of_attribute(location: str, spec: Spec) -> Iterator[KeyPath]:
    """The layers with an attribute that would have to be different, and first where it is given."""
    changed = re.search(rf"{RIGHT_IF} (\w+) is ", location)
    for name, use in spec.model.layers.items() if changed else ():
        definition = content(spec.library.find("layer", use.layer), Layer)
        if changed and changed[1] in definition.attributes:
            yield "layers", name, changed[1]
            yield "layers", name


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
