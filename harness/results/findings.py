"""Findings of checks, and verdicts."""

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
# Verdicts from harmless to grave: a cell shows the gravest verdict of its checks.
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
# Short forms of the verdicts for tables.
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
# Verdicts of a backend that did not run, in contrast to a backend that ran and was wrong.
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

# Maximum number of wrong tensors shown for a finding.
SHOWN = 3
# Prefix of the names of results of a training step.
STEP = re.compile(r"step (\d+): ")
# The check of whole steps. It may differ alone, or because gradients or other training differ.
WHOLE_STEPS = "pipeline-training"
# Maximum number of training steps whose errors are kept.
MOST_STEPS = 20

Who = Literal["layer", "plugin", "gradient", "spec", "unknown"]


class Blame(Form):
    """The part at fault for a difference, and the reason as a sentence.

    ``plugin`` is the backend's code between harness and framework, ``gradient`` the framework's
    differentiation, and ``unknown`` means that the other path could not be run.
    """

    who: Who
    words: str

    def __str__(self) -> str:
        return f"at fault: {self.who}. {self.words}"


@dataclass(slots=True)
class Finding:
    """Result of one check: tensors compared, properties that held, and faults in words.

    ``note`` says which values could not be compared. ``sizes`` is set if they differ from the
    cell's.
    """

    check: str
    deviations: list[Deviation] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    held: int = 0
    note: str = ""
    excuse: str = ""  # the known difference that explains it, in words
    sizes: str = ""
    verdict: Verdict = "agree"
    seconds: float = 0.0
    traceback: str = ""  # of the exception, in the backend's process or in this one
    words: str = ""  # the detail, if read from a record or settled
    compared: int = 0  # number of deviations before most were dropped
    kept_growth: tuple[tuple[int, float, float], ...] = ()  # as ``words``

    def judge(self) -> Finding:
        """Set the verdict from the comparisons. No comparison and no note is an error."""
        if self.faults or not all(d.agrees for d in self.deviations):
            self.verdict = "differ"
        elif all(d.void for d in self.deviations) and not self.held:
            self.verdict = "not-applicable"
            if not self.deviations and not self.note:
                self.verdict = "error"
                self.faults.append("nothing was compared")
        return self

    def settle(self) -> None:
        """Drop all deviations but the worst, and keep only the texts and counts of the others."""
        if len(self.deviations) > 1:
            self.words, self.compared = self.detail, len(self.deviations)
            self.kept_growth = self.growth
            self.deviations = [worst(self.deviations)]

    @property
    def comparisons(self) -> int:
        """The number of compared tensors and checked properties."""
        return max(len(self.deviations), self.compared) + self.held

    @property
    def worst(self) -> Deviation | None:
        """The deviation furthest beyond its tolerance; None if nothing was compared."""
        compared = [d for d in self.deviations if not d.void]
        return worst(compared) if compared else None

    @property
    def growth(self) -> tuple[tuple[int, float, float], ...]:
        """The worst tensor's error and tolerance at training steps: (step, error, tolerance)."""
        if self.kept_growth:
            return self.kept_growth
        steps: dict[int, list[Deviation]] = {}
        for deviation in self.deviations:
            found = STEP.search(deviation.name)
            if found and not deviation.void:
                steps.setdefault(int(found[1]), []).append(deviation)
        # Thin a long trajectory, but keep its first and last steps.
        every = -(-len(steps) // MOST_STEPS) or 1
        looked = [*sorted(steps)[:-1:every], *sorted(steps)[-1:]]
        worsts = ((step, worst(steps[step])) for step in looked)
        return tuple((step, found.error, found.tolerance) for step, found in worsts)

    @property
    def detail(self) -> str:
        """The faults, and the values that could not be compared, in words."""
        if self.words:
            return self.words
        wrong = [d for d in self.deviations if not d.agrees]
        void = [d for d in self.deviations if d.void]
        sizes = f"at {self.sizes}" if self.sizes and (wrong or self.faults) else ""
        parts = [*self.faults, *_some(wrong), *_some(void), *filter(None, [self.note, sizes])]
        # Only the last sentence keeps its full stop.
        return "; ".join([*(part.removesuffix(".") for part in parts[:-1]), *parts[-1:]])


def _some(deviations: list[Deviation]) -> list[str]:
    more = len(deviations) - SHOWN
    shown = deviations[:SHOWN]
    # Tables and titles name the worst tensor, so it must be among those shown.
    if more > 0 and (most := worst(deviations)) not in shown:
        shown[-1] = most
    return [
        *map(str, shown),
        *([f"and {more} more {'tensor' if more == 1 else 'tensors'}"] if more > 0 else []),
    ]


def failed(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that were made and do not pass; only measuring checks if any fails."""
    found = [f for f in findings if f.verdict not in PASSING and f.verdict != "not-run"]
    return [f for f in found if f.check in MEASURING and f.worst] or found


def digits(findings: Iterable[Finding]) -> float | None:
    """Return the decimal digits, at most 16, in which the worst measured tensor agrees.

    If checks fail, the first of them counts, as in messages. Return None if nothing was measured.
    """
    findings = [*findings]
    wrong = failed(findings)
    counting = wrong or [f for f in findings if f.check in MEASURING]
    errors = [f.worst.error for f in counting if f.worst]
    if not errors:
        return None
    return tolerance.digits(errors[0] if wrong else max(errors))


def gravest(verdicts: list[Verdict]) -> Verdict:
    """Return the gravest verdict, or ``not-run`` if there are none."""
    return max(verdicts, key=VERDICTS.index, default="not-run")
