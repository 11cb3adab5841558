"""Known differences: faults of frameworks, as data, each with its reason and an upstream link.

An entry turns matching ``differ`` findings into ``known-difference``. It is strict: a matching
finding that agrees means that the difference has vanished, which is reported as a fault, unless a
test shows the difference, since it does not show at all sizes.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from harness.checking.cell import CellResult
from harness.checking.findings import Finding
from harness.errors import SpecError
from harness.language.document import Document, load, parse, validate
from harness.language.strict import Strict
from harness.runtime.labels import backend_of

# In ``specs/``, and in a user's folders; and what it was called there before.
FILE, FORMER = "known_differences.yaml", "differences.yaml"


class Match(Strict):
    """Shell patterns of the findings that an entry is about."""

    backend: str
    spec: str = "*"
    dtype: str = "*"
    path: str = "*"
    device: str = "*"
    layer: str = "*"
    check: str = "*"
    version: str = "*"


class Difference(Strict):
    """One fault of a framework. ``shown_by`` names the test that shows it and that would notice its
    repair. Without ``match`` the harness works around it; with both it shows at some sizes only."""

    summary: str
    reason: str
    versions: str
    link: str
    match: Match | None = None
    shown_by: str | None = None


class DifferenceFile(Strict):
    """``known_differences.yaml``."""

    differences: dict[str, Difference]


@dataclass
class Differences:
    """The entries, and which of them were met."""

    entries: dict[str, Difference] = field(default_factory=dict)

    def apply(self, result: CellResult, finding: Finding) -> None:
        """Judge a finding of a cell again in the light of what is known."""
        for name, entry in self.entries.items():
            if entry.match is None or not _matches(entry.match, result, finding.check):
                continue
            if finding.verdict == "differ":
                finding.verdict = "known-difference"
                finding.faults.append(f"known difference {name}: {entry.summary}")
            elif finding.verdict == "agree" and entry.shown_by is None:
                finding.verdict = "differ"
                finding.faults.append(
                    f"known difference {name} has vanished: take it out of {FILE}"
                )
            return
        if finding.verdict == "differ":
            finding.faults += self._of_its_layers(result)

    def _of_its_layers(self, result: CellResult) -> list[str]:
        """What is known of the layers that ran in a cell, elsewhere: no excuse, but a hint."""
        return [
            f"it may be known difference {name}, which other checks have shown of {layer}: "
            f"{entry.summary}"
            for name, entry in self.entries.items()
            if (match := entry.match) is not None
            and (layer := match.layer) != "*"
            and _matches(match.model_copy(update={"spec": "*", "check": "*"}), result, "")
        ]


def _matches(match: Match, result: CellResult, check: str) -> bool:
    cell = result.cell
    # What ran each layer, several functions of a framework apart; "" where nothing was opened.
    ran = {part for label in result.layers.values() for part in label.split(", ")} or {""}
    pairs = (
        (backend_of(cell.backend), match.backend),
        (cell.spec, match.spec),
        (cell.dtype, match.dtype),
        (cell.path, match.path),
        (cell.device, match.device),
        (check, match.check),
        (result.version, match.version),
    )
    return all(fnmatch.fnmatchcase(value, pattern) for value, pattern in pairs) and any(
        fnmatch.fnmatchcase(label, match.layer) for label in ran
    )


def known_differences(folders: Iterable[Path] = ()) -> Differences:
    """Those that ship, and those of a user's folders (``known_differences.yaml``)."""
    entries: dict[str, Difference] = {}
    shipped = files("harness.specs").joinpath(FILE)
    entries.update(_read(parse(shipped.read_text(encoding="utf-8"), f"specs/{FILE}")))
    for folder in folders:
        for name in (FORMER, FILE):
            # Whatever it is: reading it tells what is wrong with it.
            if os.path.lexists(folder / name):
                entries.update(_read(load(folder / name)))
    return Differences(entries)


def _read(document: Document) -> dict[str, Difference]:
    entries = validate(document, DifferenceFile).differences
    for name, entry in entries.items():
        if entry.match is None and entry.shown_by is None:
            raise SpecError(
                f"{name}: give 'match' for what differs, or 'shown_by' with the test that shows "
                "what is worked around",
                document.place_of_key(("differences", name)),
            )
    return entries
