"""The text of an issue, in Markdown: title, versions, script, what is expected and what comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.files.kinds import ISSUED
from harness.output.markdown import escaped, fenced
from harness.results.cell import CellResult
from harness.results.findings import Finding

FILE = "issue.md"


@dataclass(frozen=True)
class IssueReport:
    """What an issue tells. ``verdict`` says whether it should be sent, and to whom."""

    result: CellResult
    check: str
    framework: str
    versions: Mapping[str, str]
    verdict: str
    script: str = ""
    printed: str = ""
    files: Sequence[str] = ()


def title(result: CellResult, check: str) -> str:
    """One line: whose layer, which number of it, how far off."""
    cell = result.cell
    said = result.blame.words if result.blame else ""
    native = [
        label
        for key, label in result.layers.items()
        if label != "equations" and (label in said if said else key in result.wrong_layers)
    ]
    whose = ", ".join(dict.fromkeys(native)) or cell.backend
    finding = _finding(result, check)
    worst = finding.worst if finding else None
    off = f"{worst.name} off by {worst.error:.1e}{worst.unit}" if worst else f"{check} off"
    return f"{whose}: {off} in {cell.dtype}"


def written(report: IssueReport) -> str:
    """The whole text."""
    result = report.result
    finding = _finding(result, report.check)
    lines = [ISSUED.decode().rstrip("\n"), f"# {escaped(title(result, report.check))}", ""]
    lines += [escaped(report.verdict), ""]
    if result.blame:
        lines += [escaped(f"{result.blame.words}."), ""]
    lines += ["## Versions", ""]
    lines += [f"- {escaped(name)} {escaped(version)}" for name, version in report.versions.items()]
    lines += [f"- device {escaped(result.cell.device)}, {escaped(result.cell.dtype)}", ""]
    lines += ["## Expected and actual", ""]
    if result.location:
        lines += [escaped(result.location), ""]
    if finding and finding.detail:
        lines += [escaped(finding.detail), ""]
    lines += [
        "What is expected are the layer's documented equations, in float64 with numpy. What "
        "rounding alone explains was measured on the same numbers.",
        "",
    ]
    if report.script:
        lines += ["## To reproduce", ""]
        if report.files:
            beside = ", ".join(escaped(name) for name in report.files)
            lines += [f"With {beside} beside it:", ""]
        lines += [*fenced(report.script, "python"), ""]
    if report.printed:
        lines += ["It prints absolute differences:", "", *fenced(report.printed, "text"), ""]
    return "\n".join(lines)


def _finding(result: CellResult, check: str) -> Finding | None:
    return next((f for f in result.findings if f.check == check), None)
