"""The headline of a report: a sentence with the result, its colour, and a few facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.checking.history import count_by_day
from harness.checking.request import QUICK, choose_checks
from harness.errors import several
from harness.report import speeds
from harness.report.cells import KEPT, count_verdicts
from harness.report.inputs import CheckRun, Inputs
from harness.results.cell import CellResult, not_compared
from harness.results.findings import AGREEING, BROKEN, PASSING

if TYPE_CHECKING:
    from harness.report.changes import News

Tone = Literal["good", "bad", "broken"]
# The maximum numbers of notes on specs, and of names of checks, in the headline.
MOST_NOTES, MOST_NAMED = 5, 5
SIGNS = {"good": "✓", "bad": "✗", "broken": "⚠"}


@dataclass(frozen=True)
class Headline:
    """The top of a report: a sentence with the result, and a few lines below it.

    ``tone`` is "bad" if a result differs or got worse. It is "broken" if nothing differs, but a
    cell could not be run. Otherwise it is "good".
    """

    tone: Tone
    sentence: str
    lines: tuple[str, ...]
    against: str = ""

    @property
    def sign(self) -> str:
        """A sign for the tone, e.g. ✗, for readers who do not see colours."""
        return SIGNS[self.tone]


def headline(inputs: Inputs, news: News | None) -> Headline:
    """Return the headline of a report. If ``news`` is given, the headline also says what the report
    is compared with, and is "bad" if a result got worse."""
    tone, sentence, lines = _summarize_checks(inputs)
    files = [run.file for run in inputs.benches]
    if files:
        counts = speeds.count_speeds(files)
        lines += [counts] if sentence else []
        sentence = sentence or counts
        cut = [f"{r.name} was {r.file.harness.incomplete}" for r in inputs.benches if r.cut_short]
        lines += cut
        silent = not any(file.benchmarks for file in files)
        lacking = any(file.harness.without_speed for file in files)
        if tone == "good" and (cut or lacking or silent):
            tone = "broken"
    if inputs.trainings:
        counts = several(len(inputs.trainings), "training")
        lines += [counts] if sentence else []
        sentence = sentence or counts
    against = ""
    if news is not None:
        against = f"compared with {news.sentence}"
        lines += news.limits
        if news.exit_code and tone != "bad":
            tone = "bad"
    return Headline(tone, sentence, tuple(lines), against)


def _summarize_checks(inputs: Inputs) -> tuple[Tone, str, list[str]]:
    check = inputs.check
    if check is None:
        return "good", "", []
    results = list(check.cells.values())
    lost = sum(r.verdict in BROKEN for r in results)
    differ = sum(r.verdict not in PASSING for r in results) - lost
    of = f"of {several(len(results), 'cell')}"
    lines = [count_verdicts(results), *_describe_scope(check), *check.pairs(every=False)]
    if check.seconds is not None:
        lines.append(f"took {check.seconds:.0f} s")
    if old := [result for result in results if result.remembered]:
        lines.append(
            f"{len(old)} {of} are kept from earlier runs ({KEPT}): {', '.join(count_by_day(old))}"
        )
    notes = [*dict.fromkeys(note for head in check.heads for note in head.notes)]
    lines += [f"note: {note}" for note in notes[:MOST_NOTES]]
    if len(notes) > MOST_NOTES:
        lines.append(f"and {several(len(notes) - MOST_NOTES, 'more note')}")
    lines += [f"not compared: {words}" for words in not_compared(results)]
    if check.records.stopped:
        lines.append(f"the run was {check.records.stopped}")
    if cut := check.records.cut_off:
        they = "it" if len(cut) == 1 else "they"
        lines.append(f"{len(cut)} cut off before {they} ended")
    if differ:
        verb = "differs" if differ == 1 else "differ"
        return "bad", f"{differ} {of} {verb}", lines
    if lost:
        return "broken", f"{lost} {of} could not be run", lines
    if not results:
        return "broken", "No cell was finished", lines
    silent = sum(not any(f.verdict in AGREEING for f in r.findings) for r in results)
    stop = ", and then it stopped" if check.records.stopped else ""
    if silent == len(results):
        return "broken", f"Nothing was compared in {several(silent, 'cell')}{stop}", lines
    agreed = _describe_agreement(results, len(results) - silent, whole=not silent and not stop)
    nothing = f", and in {silent} {'others' if silent > 1 else 'other'} nothing was compared"
    return "broken" if stop else "good", f"{agreed}{nothing if silent else ''}{stop}", lines


def _describe_scope(check: CheckRun) -> list[str]:
    """Describe in one line what was checked: the selected checks, the dtypes and the number of
    comparisons. The list is empty if no cell has finished."""
    ended = [f for r in check.cells.values() for f in r.findings if f.verdict != "not-run"]
    if not ended:
        return []
    selections = dict.fromkeys(
        _describe_selection(h.request.checks) for h in check.heads if h.request
    )
    dtypes = " and ".join(sorted({cell.dtype for cell in check.cells}))
    kinds = several(len({f.check for f in ended}), "kind")
    counts = [f"{several(len(ended), 'check')} of {kinds}"]
    if check.comparisons is not None:
        counts.append(f"{check.comparisons:,} comparisons")
    return [f"{', '.join([*selections, f'in {dtypes}'])}: {', '.join(counts)}"]


def _describe_selection(checks: Sequence[str]) -> str:
    """Describe which checks were selected for the run, e.g. "full check"."""
    if tuple(checks) == QUICK["checks"]:
        return f"quick check ({', '.join(checks)} only)"
    every = choose_checks(("*",))
    if "*" in checks or set(every) <= {*checks}:
        return "full check"
    if len(checks) > MOST_NAMED:
        return f"{len(checks)} of {len(every)} groups of checks"
    return f"only the checks {', '.join(checks)}"


def _describe_agreement(results: Sequence[CellResult], compared: int, *, whole: bool) -> str:
    """Say how many cells agree or have only known differences, e.g. "All 12 cells agree".
    ``compared`` is the number of cells in which something was compared. ``whole`` is True if these
    are all cells of the run."""
    known = sum(result.verdict == "known-difference" for result in results)
    if compared == 1 and whole:
        return "It has a known difference" if known else "It agrees"
    verb = "agree" if compared > 1 else "agrees"
    if known == compared:
        verb = "have known differences" if compared > 1 else "has a known difference"
    elif known:
        verb += ", or have known differences"
    return f"{'All ' if whole else ''}{several(compared, 'cell')} {verb}"
