"""One sentence and one colour: what came of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.check.findings import PASSING
from harness.report.cells import counted
from harness.report.inputs import Inputs
from harness.report.news import News

Tone = Literal["good", "bad", "broken"]
SIGNS = {"good": "✓", "bad": "✗", "broken": "⚠"}


@dataclass(frozen=True)
class Headline:
    """The top of a report: ``good`` if all passes, ``bad`` if something differs or got worse,
    ``broken`` if something could not be run and nothing differs."""

    tone: Tone
    sentence: str
    lines: tuple[str, ...]
    against: str = ""

    @property
    def sign(self) -> str:
        """The tone without its colour."""
        return SIGNS[self.tone]


def headline(inputs: Inputs, news: News | None) -> Headline:
    """What came of a run, and against the last one."""
    tone, sentence, lines = _of_checks(inputs)
    speeds = [run.file for run in inputs.benches]
    if speeds:
        count = sum(len(file.benchmarks) for file in speeds)
        refused = sum(len(file.harness.without_speed) for file in speeds)
        told = f"{count} speeds, {refused} refused" if refused else f"{count} speeds"
        lines.append(told)
        if not sentence:
            sentence = told
        if refused and tone == "good":
            tone = "broken"
    if not sentence:
        sentence = f"{len(inputs.trainings)} trainings"
    against = ""
    if news is not None:
        against = f"against {news.name}: {news.counted}"
        if news.worse and tone != "bad":
            tone = "bad"
    return Headline(tone, sentence, tuple(lines), against)


def _of_checks(inputs: Inputs) -> tuple[Tone, str, list[str]]:
    check = inputs.check
    if check is None:
        return "good", "", []
    results = list(check.cells.values())
    differ = sum(r.verdict not in PASSING and not _lost(r.verdict) for r in results)
    lost = sum(_lost(r.verdict) for r in results)
    of = f"of {len(results)} cells" if len(results) != 1 else "of 1 cell"
    lines = [counted(results), f"{sum(r.seconds for r in results):.0f} s of checking"]
    if check.cut:
        lines.append(f"{len(check.cut)} cut off before they ended")
    if differ:
        verb = "differs" if differ == 1 else "differ"
        return "bad", f"{differ} {of} {verb}", lines
    if lost:
        return "broken", f"{lost} {of} could not be run", lines
    if not results:
        return "broken", "No cell has ended", lines
    return "good", f"All {len(results)} cells agree" if len(results) > 1 else "It agrees", lines


def _lost(verdict: str) -> bool:
    return verdict in ("error", "crashed", "timeout", "out-of-memory", "not-run")
