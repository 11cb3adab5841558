"""The findings of checks, and the verdicts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.files.forms import Form
from harness.oracle import tolerance
from harness.oracle.tolerance import Deviation, worst

Verdict = Literal[
    "not-applicable",
    "agree",
    "differ",
    "known-difference",
    "unsupported",
    "error",
    "crashed",
    "timeout",
    "out-of-memory",
    "not-run",
]
# From harmless to grave: a cell shows the gravest of its checks.
VERDICTS: tuple[Verdict, ...] = (
    "not-applicable",
    "agree",
    "known-difference",
    "unsupported",
    "not-run",
    "differ",
    "error",
    "timeout",
    "out-of-memory",
    "crashed",
)
PASSING: frozenset[Verdict] = frozenset(
    {"not-applicable", "agree", "known-difference", "unsupported"}
)
# Each in a word, for a table.
MARKS: Mapping[Verdict, str] = {
    "not-applicable": "no answer",
    "agree": "",
    "known-difference": "known",
    "unsupported": "unsupported",
    "differ": "DIFFER",
    "error": "ERROR",
    "crashed": "CRASHED",
    "timeout": "TIMEOUT",
    "out-of-memory": "OUT OF MEMORY",
    "not-run": "not run",
}
# Verdicts of a backend that did not run, as opposed to one that ran and was wrong.
BROKEN: frozenset[Verdict] = frozenset({"error", "crashed", "timeout", "out-of-memory", "not-run"})

# The checks whose numbers say how closely a backend follows the oracle. The others test edges.
MEASURING = frozenset(
    {
        "outputs",
        "loss",
        "state",
        "statistics",
        "gradients",
        "cotangent-gradients",
        "inference",
        "carried-state",
        "training",
        "training-sgd",
        "own-sizes",
    }
)

# Of the tensors of a finding that are off, so many are shown.
SHOWN = 3
# How results of a step of training are named.
STEP = re.compile(r"step (\d+): ")
# The check of whole steps. It differs if gradients or another check of training does, and by itself
# for other reasons too.
WHOLE_STEPS = "pipeline-training"
# Of a training's steps, those whose errors are kept.
MOST_STEPS = 20

Who = Literal["layer", "plugin", "gradient", "spec", "unknown"]


class Blame(Form):
    """Who is at fault where a cell differs, and why, as a sentence.

    ``layer`` is the framework's own, ``plugin`` the backend's code between the harness and the
    framework, ``gradient`` the framework's differentiation, ``spec`` the equations; ``unknown``
    where the other path could not be run.
    """

    who: Who
    words: str

    def __str__(self) -> str:
        return f"at fault: {self.who}. {self.words}"


@dataclass(slots=True)
class Finding:
    """One check's result: tensors compared, properties that held, faults in words.

    ``note`` says what could not be looked at, and why; ``sizes``, in words, the sizes of a check
    that has others than the rest of the cell.
    """

    check: str
    deviations: list[Deviation] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    held: int = 0
    note: str = ""
    excuse: str = ""  # the known difference that it is, in words
    sizes: str = ""
    verdict: Verdict = "agree"
    seconds: float = 0.0
    traceback: str = ""  # of what was raised, in the backend's process or in this one
    words: str = ""  # the detail, of a finding from a record or one that has not kept all of it
    compared: int = 0  # deviations there were, before most were dropped
    kept_growth: tuple[tuple[int, float, float], ...] = ()  # as ``growth``, likewise

    def judge(self) -> Finding:
        """Set the verdict from what was compared. Nothing, and no word why, is an error."""
        if self.faults or not all(d.agrees for d in self.deviations):
            self.verdict = "differ"
        elif all(d.void for d in self.deviations) and not self.held:
            self.verdict = "not-applicable"
            if not self.deviations and not self.note:
                self.verdict = "error"
                self.faults.append("nothing was compared")
        return self

    def settle(self) -> None:
        """Drop all deviations but the worst, and what tells nothing: no more is asked of it."""
        if len(self.deviations) > 1:
            self.words, self.compared = self.detail, len(self.deviations)
            self.kept_growth = self.growth
            self.deviations = [worst(self.deviations)]

    @property
    def comparisons(self) -> int:
        """How many tensors were compared and properties looked at."""
        return max(len(self.deviations), self.compared) + self.held

    @property
    def worst(self) -> Deviation | None:
        """The deviation that is furthest beyond what is allowed; None if nothing was compared."""
        compared = [d for d in self.deviations if not d.void]
        return worst(compared) if compared else None

    @property
    def growth(self) -> tuple[tuple[int, float, float], ...]:
        """Of steps of training, each with the worst tensor's error and what it may be."""
        if self.kept_growth:
            return self.kept_growth
        steps: dict[int, list[Deviation]] = {}
        for deviation in self.deviations:
            found = STEP.search(deviation.name)
            if found and not deviation.void:
                steps.setdefault(int(found[1]), []).append(deviation)
        # Of a long trajectory some, the first and the last among them.
        every = -(-len(steps) // MOST_STEPS) or 1
        looked = [*sorted(steps)[:-1:every], *sorted(steps)[-1:]]
        worsts = ((step, worst(steps[step])) for step in looked)
        return tuple((step, found.error, found.tolerance) for step, found in worsts)

    @property
    def detail(self) -> str:
        """What went wrong, in words, and what could not be looked at; empty if nothing."""
        if self.words:
            return self.words
        wrong = [d for d in self.deviations if not d.agrees]
        void = [d for d in self.deviations if d.void]
        sizes = f"at {self.sizes}" if self.sizes and (wrong or self.faults) else ""
        parts = [*self.faults, *_some(wrong), *_some(void), *filter(None, [self.note, sizes])]
        # A sentence that others follow has its stop behind the last of them.
        return "; ".join([*(part.removesuffix(".") for part in parts[:-1]), *parts[-1:]])


def _some(deviations: list[Deviation]) -> list[str]:
    more = len(deviations) - SHOWN
    shown = deviations[:SHOWN]
    # The tensor that tables and titles name is among those shown.
    if more > 0 and (most := worst(deviations)) not in shown:
        shown[-1] = most
    return [
        *map(str, shown),
        *([f"and {more} more {'tensor' if more == 1 else 'tensors'}"] if more > 0 else []),
    ]


def failed(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that do not pass and were made: those that measure, if any of them fails,
    since the others' numbers are of edges."""
    found = [f for f in findings if f.verdict not in PASSING and f.verdict != "not-run"]
    return [f for f in found if f.check in MEASURING and f.worst] or found


def digits(findings: Iterable[Finding]) -> float | None:
    """Decimal digits in which the worst tensor of those that measure agrees with the oracle, 16 at
    most; if checks fail, the worst tensor of the first of those, which messages describe first.
    None where nothing was measured."""
    findings = [*findings]
    wrong = failed(findings)
    counting = wrong or [f for f in findings if f.check in MEASURING]
    errors = [f.worst.error for f in counting if f.worst]
    if not errors:
        return None
    return tolerance.digits(errors[0] if wrong else max(errors))


def gravest(verdicts: list[Verdict]) -> Verdict:
    """The gravest of some verdicts; ``not-run`` of none."""
    return max(verdicts, key=VERDICTS.index, default="not-run")
