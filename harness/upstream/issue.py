"""The text of an issue, in Markdown: title, versions, script, what is expected and what comes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.check.cell import CellResult
from harness.check.findings import Finding
from harness.files.kinds import ISSUED
from harness.terminal import visible

FILE = "issue.md"
# What Markdown reads in the middle of a line, and what makes a link of bare text.
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$]|(?<=:)//|(?<=www)\.)", re.I)
# What it reads at the start of one.
_START = re.compile(r"^(\d*)([-+=.)])")


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
    """One line: whose layer, what of it, how far off."""
    cell = result.cell
    said = result.blame.words if result.blame else ""
    native = [label for label in result.layers.values() if label != "equations" and label in said]
    whose = ", ".join(dict.fromkeys(native)) or cell.backend
    finding = _finding(result, check)
    worst = finding.worst if finding else None
    by = f" by {worst.error:.1e}" if worst else ""
    return f"{whose}: {check} off{by} in {cell.dtype}"


def written(report: IssueReport) -> str:
    """The whole text."""
    result = report.result
    finding = _finding(result, report.check)
    lines = [ISSUED.decode().rstrip("\n"), f"# {prose(title(result, report.check))}", ""]
    lines += [prose(report.verdict), ""]
    if result.blame:
        lines += [prose(f"{result.blame.words}."), ""]
    lines += ["## Versions", ""]
    lines += [f"- {prose(name)} {prose(version)}" for name, version in report.versions.items()]
    lines += [f"- device {prose(result.cell.device)}, {prose(result.cell.dtype)}", ""]
    lines += ["## Expected and actual", ""]
    if result.location:
        lines += [prose(result.location), ""]
    if finding and finding.detail:
        lines += [prose(finding.detail), ""]
    lines += [
        "What is expected are the layer's documented equations, in float64 with numpy. What "
        "rounding alone explains was measured on the same numbers.",
        "",
    ]
    if report.script:
        lines += ["## To reproduce", ""]
        if report.files:
            beside = ", ".join(prose(name) for name in report.files)
            lines += [f"With {beside} beside it:", ""]
        lines += [*fenced(report.script, "python"), ""]
    if report.printed:
        lines += ["It prints:", "", *fenced(report.printed, "text"), ""]
    return "\n".join(lines)


def prose(text: str) -> str:
    """Any text as Markdown that shows just that: no markup, link or mention, on one line."""
    plain = _SPECIAL.sub(r"\\\1", visible(" ".join(text.split())))
    return _START.sub(r"\1\\\2", plain).replace("@", "&#64;")


def fenced(text: str, language: str) -> list[str]:
    """Any text as a block of code, which nothing in it can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", visible(text.rstrip("\n")), fence]


def _finding(result: CellResult, check: str) -> Finding | None:
    return next((f for f in result.findings if f.check == check), None)
