"""What changed since older runs, of checks and of speeds."""

from __future__ import annotations

from dataclasses import dataclass

from harness.checking import changes as checks
from harness.errors import UsageError
from harness.report.inputs import Inputs
from harness.runs.compared import HEADINGS, RunChanges
from harness.timing import compare as speeds


@dataclass(frozen=True)
class ToldChange:
    """A change as a page tells it."""

    tone: str
    label: str
    words: str


# So many that are not worse stand in sight; more of them are folded.
MOST_GOOD = 10


@dataclass(frozen=True)
class News(RunChanges):
    """All changes against older runs, ``what`` they are, and what is not the same around them."""

    @property
    def told(self) -> list[ToldChange]:
        """The changes, gravest first; without :attr:`folded`."""
        found = self._all
        bad = [change for change in found if change.tone == "bad"]
        return bad if self.folded else found

    @property
    def folded(self) -> list[ToldChange]:
        """Those that are not worse, where they are many."""
        good = [change for change in self._all if change.tone == "good"]
        return good if len(good) > MOST_GOOD else []

    @property
    def _all(self) -> list[ToldChange]:
        return [
            ToldChange("bad" if c.worse else "good", HEADINGS[c.kind][0], str(c))
            for c in sorted(self.changes, key=lambda change: not change.worse)
        ]


def news(inputs: Inputs, old: Inputs) -> News | None:
    """What changed from the older files to the newer ones of the same kind; None of no files.

    Raises:
        UsageError: there are older files of a kind and no newer ones, more of them than newer
            ones, or one is of a kind that cannot be compared.
    """
    found: list[RunChanges] = []
    names = []
    if old.trainings:
        raise UsageError(
            f"{old.trainings[0].name} are weights, and --base is of records or speeds: give "
            "weights beside the other files, and their curves are drawn together"
        )
    if old.check is not None:
        if inputs.check is None:
            raise UsageError(f"{old.check.name} are records: give the newer ones, too")
        found.append(checks.compare(old.check.records, inputs.check.records))
        names.append(f"{old.check.name} ({old.check.started})")
    if old.benches and not inputs.benches:
        raise UsageError(f"{old.benches[0].name} are speeds: give the newer ones, too")
    if len(old.benches) > len(inputs.benches):
        named = ", ".join(run.name for run in old.benches)
        raise UsageError(
            f"--base gives {len(old.benches)} files of speeds ({named}), and there are newer ones "
            f"in {len(inputs.benches)}: give one for each"
        )
    for before, after in zip(old.benches, inputs.benches, strict=False):
        found.append(speeds.compare(before.file, after.file))
        names.append(before.name)
    if not found:
        return None
    return News(
        environment=[differing for each in found for differing in each.environment],
        changes=[change for each in found for change in each.changes],
        what=", ".join(names),
        limits=[limit for each in found for limit in each.limits],
        moved=[digits for each in found for digits in each.moved],
        unsure="; ".join(each.unsure for each in found if each.unsure),
    )
