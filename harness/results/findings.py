"""Findings (the results of single checks), and their verdicts, e.g. "agree" or "differ"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from harness.files.forms import Form
from harness.oracle import tolerance
from harness.oracle.tolerance import Deviation, worst

# The verdicts from harmless to grave. The verdict of a cell is the gravest verdict of its checks.
Verdict = Literal[
    "not-applicable",
    "agree",
    "float32-precision",
    "known-difference",
    "unsupported",
    "not-run",
    "differ",
    "error",
    "timeout",
    "out-of-memory",
    "crashed",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
PASSING: frozenset[Verdict] = frozenset(
    {"not-applicable", "agree", "float32-precision", "known-difference", "unsupported"}
)
# Short labels of the verdicts for tables.
MARKS: Mapping[Verdict, str] = {
    "not-applicable": "no answer",
    "agree": "",
    "float32-precision": "float32",
    "known-difference": "known",
    "unsupported": "unsupported",
    "differ": "DIFFER",
    "error": "ERROR",
    "crashed": "CRASHED",
    "timeout": "TIMEOUT",
    "out-of-memory": "OUT OF MEMORY",
    "not-run": "not run",
}
# Verdicts of cells that compared something and pass.
AGREEING: frozenset[Verdict] = frozenset({"agree", "float32-precision", "known-difference"})
# Verdicts of a backend that did not run (a backend that ran with wrong results is not broken).
BROKEN: frozenset[Verdict] = frozenset({"error", "crashed", "timeout", "out-of-memory", "not-run"})

# The checks whose errors measure how closely a backend follows the oracle. The other checks test
# special inputs.
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

# The maximum number of wrong tensors that are shown for a finding.
SHOWN = 3
# The prefix in the names of a training step's results.
STEP = re.compile(r"step (\d+): ")
# The check of whole training steps. It may differ alone, or because a check of gradients or of
# training differs.
WHOLE_STEPS = "pipeline-training"
# The maximum number of training steps whose errors are kept.
MOST_STEPS = 20

Who = Literal["layer", "plugin", "gradient", "compiler", "spec", "unknown"]


class Blame(Form):
    """The part at fault for a difference (``who``), and the reason as a sentence (``words``).

    ``plugin`` is the backend's code between harness and framework. ``gradient`` is the framework's
    automatic differentiation. ``compiler`` is the framework's compiler. ``unknown`` means that the
    cause is not known, because the execution path that would show it could not be run.
    """

    who: Who
    words: str

    def __str__(self) -> str:
        return f"at fault: {self.who}. {self.words}"


@dataclass(slots=True)
class Finding:
    """The result of one check.

    - ``deviations`` has the compared tensors with their errors and tolerances.
    - ``held`` is the number of tested properties that are true, e.g. that two calls return the same
      bits.
    - ``faults`` are texts about properties that are not true, and about results that are missing or
      invalid.
    - ``note`` says which values could not be compared.
    - ``sizes`` has the sizes of the check as text, if they differ from the sizes of the cell.
    """

    check: str
    deviations: list[Deviation] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    held: int = 0
    note: str = ""
    # The known difference that explains the deviations, as text. Or, if the deviations agree, the
    # reason why they have the tolerance of float32 in a float64 cell.
    excuse: str = ""
    sizes: str = ""
    verdict: Verdict = "agree"
    seconds: float = 0.0
    traceback: str = ""  # of an exception in the backend's process or in the harness
    words: str = ""  # the detail text, if read from a record file or kept by ``settle``
    compared: int = 0  # the number of deviations before ``settle`` dropped them
    kept_growth: tuple[tuple[int, float, float], ...] = ()  # kept like ``words``

    def judge(self) -> Finding:
        """Set the verdict from the deviations and faults, and return this finding.

        The verdict is "error" if nothing was compared and :attr:`note` does not give the reason.
        """
        if self.faults or not all(d.agrees for d in self.deviations):
            self.verdict = "differ"
        elif all(d.void for d in self.deviations) and not self.held:
            self.verdict = "not-applicable"
            if not self.deviations and not self.note:
                self.verdict = "error"
                self.faults.append("nothing was compared")
        elif self.excuse:
            self.verdict = "float32-precision"
        return self

    def settle(self) -> None:
        """Drop all deviations except the worst, to save memory. The number, the text and the growth
        of all deviations are kept for the record."""
        if len(self.deviations) > 1:
            self.words, self.compared = self.detail, len(self.deviations)
            self.kept_growth = self.growth
            self.deviations = [worst(self.deviations)]

    @property
    def comparisons(self) -> int:
        """The number of compared tensors and of tested properties together."""
        return max(len(self.deviations), self.compared) + self.held

    @property
    def worst(self) -> Deviation | None:
        """The compared tensor with the largest ratio of error to tolerance; None if nothing was
        compared."""
        compared = [d for d in self.deviations if not d.void]
        return worst(compared) if compared else None

    @property
    def growth(self) -> tuple[tuple[int, float, float], ...]:
        """The error of the worst tensor after some of the training steps, as tuples (step, error,
        tolerance)."""
        if self.kept_growth:
            return self.kept_growth
        steps: dict[int, list[Deviation]] = {}
        for deviation in self.deviations:
            found = STEP.search(deviation.name)
            if found and not deviation.void:
                steps.setdefault(int(found[1]), []).append(deviation)
        # Of a long training, keep only some steps, with the first and the last step.
        every = -(-len(steps) // MOST_STEPS) or 1
        shown_steps = [*sorted(steps)[:-1:every], *sorted(steps)[-1:]]
        worsts = ((step, worst(steps[step])) for step in shown_steps)
        return tuple((step, found.error, found.tolerance) for step, found in worsts)

    @property
    def detail(self) -> str:
        """Text about the faults, the wrong tensors, and the values that could not be compared."""
        if self.words:
            return self.words
        wrong = [d for d in self.deviations if not d.agrees]
        void = [d for d in self.deviations if d.void]
        sizes = f"at {self.sizes}" if self.sizes and (wrong or self.faults) else ""
        parts = [
            *self.faults,
            *_list_some(wrong),
            *_list_some(void),
            *filter(None, [self.note, sizes]),
        ]
        # Only the last sentence keeps its full stop.
        return "; ".join([*(part.removesuffix(".") for part in parts[:-1]), *parts[-1:]])


def _list_some(deviations: list[Deviation]) -> list[str]:
    more = len(deviations) - SHOWN
    shown = deviations[:SHOWN]
    # Tables and titles name the worst tensor, so it must be among the shown tensors.
    if more > 0 and (most := worst(deviations)) not in shown:
        shown[-1] = most
    return [
        *map(str, shown),
        *([f"and {more} more {'tensor' if more == 1 else 'tensors'}"] if more > 0 else []),
    ]


def select_failed(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings of the checks that ran and failed.

    If some of these checks measure an error (:data:`MEASURING`), return only their findings.
    """
    failures = [f for f in findings if f.verdict not in PASSING and f.verdict != "not-run"]
    return [f for f in failures if f.check in MEASURING and f.worst] or failures


def digits(findings: Iterable[Finding]) -> float | None:
    """Return the number of correct decimal digits of the worst tensor, at most 16.

    If checks failed, return the digits of the first failed check, because messages also show this
    check. Return None if no error was measured.
    """
    findings = [*findings]
    wrong = select_failed(findings)
    counting = wrong or [f for f in findings if f.check in MEASURING]
    errors = [f.worst.error for f in counting if f.worst]
    if not errors:
        return None
    return tolerance.digits(errors[0] if wrong else max(errors))


def gravest(verdicts: list[Verdict]) -> Verdict:
    """Return the gravest of some verdicts; return ``not-run`` if the list is empty."""
    return max(verdicts, key=VERDICTS.index, default="not-run")
