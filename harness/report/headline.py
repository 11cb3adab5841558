"""One sentence and one colour: what came of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.checking.history import days
from harness.errors import several
from harness.report import speeds
from harness.report.cells import KEPT, counted
from harness.report.inputs import Inputs
from harness.results.cell import CellResult, not_compared
from harness.results.findings import BROKEN, PASSING

if TYPE_CHECKING:
    from harness.report.news import News

Tone = Literal["good", "bad", "broken"]
# Verdicts of checks that have compared something.
COMPARED = frozenset({"agree", "known-difference"})
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
    files = [run.file for run in inputs.benches]
    if files:
        told = speeds.counted(files)
        lines += [told] if sentence else []
        sentence = sentence or told
        cut = [f"{r.name} was {r.file.harness.incomplete}" for r in inputs.benches if r.cut_short]
        lines += cut
        silent = not any(file.benchmarks for file in files)
        lacking = any(file.harness.without_speed for file in files)
        if tone == "good" and (cut or lacking or silent):
            tone = "broken"
    if inputs.trainings:
        told = several(len(inputs.trainings), "training")
        lines += [told] if sentence else []
        sentence = sentence or told
    against = ""
    if news is not None:
        against = f"against {news.name}: {news.counted}"
        lines += news.limits
        if news.worse and tone != "bad":
            tone = "bad"
    return Headline(tone, sentence, tuple(lines), against)


def _of_checks(inputs: Inputs) -> tuple[Tone, str, list[str]]:
    check = inputs.check
    if check is None:
        return "good", "", []
    results = list(check.cells.values())
    lost = sum(r.verdict in BROKEN for r in results)
    differ = sum(r.verdict not in PASSING for r in results) - lost
    of = f"of {several(len(results), 'cell')}"
    lines = [counted(results), *check.pairs(every=False)]
    if check.seconds is not None:
        lines.append(f"took {check.seconds:.0f} s")
    if old := [result for result in results if result.remembered]:
        lines.append(f"{len(old)} {of} are kept from earlier runs ({KEPT}): {', '.join(days(old))}")
    lines += [f"not compared: {words}" for words in not_compared(results)]
    if check.stopped:
        lines.append(f"the run was {check.stopped}")
    if check.cut:
        they = "it" if len(check.cut) == 1 else "they"
        lines.append(f"{len(check.cut)} cut off before {they} ended")
    if differ:
        verb = "differs" if differ == 1 else "differ"
        return "bad", f"{differ} {of} {verb}", lines
    if lost:
        return "broken", f"{lost} {of} could not be run", lines
    if not results:
        return "broken", "No cell has ended", lines
    silent = sum(not any(f.verdict in COMPARED for f in r.findings) for r in results)
    stop = ", and then it stopped" if check.stopped else ""
    if silent == len(results):
        return "broken", f"Nothing was compared in {several(silent, 'cell')}{stop}", lines
    agreed = _agreed(results, len(results) - silent, whole=not silent and not stop)
    nothing = f", and in {silent} {'others' if silent > 1 else 'other'} nothing was compared"
    return "broken" if stop else "good", f"{agreed}{nothing if silent else ''}{stop}", lines


def _agreed(results: Sequence[CellResult], compared: int, *, whole: bool) -> str:
    """That so many cells agree, or differ as is known; ``whole`` if there are no others."""
    known = sum(result.verdict == "known-difference" for result in results)
    if compared == 1 and whole:
        return "It differs as is known" if known else "It agrees"
    verb = "agree" if compared > 1 else "agrees"
    if known == compared:
        verb = "differ as is known" if compared > 1 else "differs as is known"
    elif known:
        verb += ", or differ as is known"
    return f"{'All ' if whole else ''}{several(compared, 'cell')} {verb}"
