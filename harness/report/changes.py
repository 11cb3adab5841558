"""Changes of checks and speeds since older runs, for a report."""

from __future__ import annotations

from dataclasses import dataclass

from harness.checking import changes as checks
from harness.errors import UsageError
from harness.report.inputs import Inputs
from harness.runs.changes import HEADINGS, RunChanges
from harness.timing import compare as speeds


@dataclass(frozen=True)
class ChangeText:
    """A change since an older run, as text for the page.

    ``tone`` is "bad" or "good". ``label`` is the kind of change, e.g. "slower". ``words`` is the
    text that describes the change.
    """

    tone: str
    label: str
    words: str


# The maximum number of changes for the better that are listed; if there are more, all are
# collapsed.
MOST_GOOD = 10


@dataclass(frozen=True)
class News(RunChanges):
    """The changes since older runs. ``what`` is a text that names the older files, e.g. in a
    heading."""

    @property
    def listed_changes(self) -> list[ChangeText]:
        """The changes that the page lists openly, gravest first: all changes except
        :attr:`collapsed_changes`."""
        changes = self._all_changes
        bad = [change for change in changes if change.tone == "bad"]
        return bad if self.collapsed_changes else changes

    @property
    def collapsed_changes(self) -> list[ChangeText]:
        """The improvements, if there are more than :data:`MOST_GOOD`; else an empty list. The page
        hides this list until the reader opens it."""
        good = [change for change in self._all_changes if change.tone == "good"]
        return good if len(good) > MOST_GOOD else []

    @property
    def _all_changes(self) -> list[ChangeText]:
        return [
            ChangeText("bad" if c.worse else "good", HEADINGS[c.kind][0], str(c))
            for c in sorted(self.changes, key=lambda change: not change.worse)
        ]


def news(inputs: Inputs, old: Inputs) -> News | None:
    """Compare the files of the report with the older files ``old``: records with records, speeds
    with speeds. Return None if there are no older files.

    Raises:
        UsageError: an older file has no newer file of its kind, there are more older than newer
            files of speeds, or the files cannot be compared.
    """
    comparisons: list[RunChanges] = []
    names = []
    if old.trainings:
        raise UsageError(
            f"{old.trainings[0].name} contains weights, but --base takes records or speeds: list "
            "weights with the newer files, and the report draws all loss curves together"
        )
    if old.check is not None:
        if inputs.check is None:
            raise UsageError(f"{old.check.name} contains records: also give the newer records")
        comparisons.append(checks.compare(old.check.records, inputs.check.records))
        names.append(f"{old.check.name} ({old.check.started})")
    if old.benches and not inputs.benches:
        raise UsageError(f"{old.benches[0].name} contains speeds: also give the newer speeds")
    if len(old.benches) > len(inputs.benches):
        named = ", ".join(run.name for run in old.benches)
        raise UsageError(
            f"--base gives {len(old.benches)} files of speeds ({named}), but the number of newer "
            f"files of speeds is {len(inputs.benches)}: give a newer file for each older file"
        )
    for before, after in zip(old.benches, inputs.benches, strict=False):
        comparisons.append(speeds.compare(before.file, after.file))
        names.append(before.name)
    if not comparisons:
        return None
    return News(
        environment=[differing for each in comparisons for differing in each.environment],
        changes=[change for each in comparisons for change in each.changes],
        what=", ".join(names),
        limits=[limit for each in comparisons for limit in each.limits],
        moved=[digits for each in comparisons for digits in each.moved],
        unsure="; ".join(each.unsure for each in comparisons if each.unsure),
    )
