"""Known differences: faults of frameworks, as data, each with its reason and an upstream link.

An entry turns matching ``differ`` findings into ``known-difference``. It is strict: a matching
finding that agrees means that the difference has vanished, which is reported as a fault, unless a
test shows the difference, since it does not show at all sizes. With ``parameter`` an entry excuses
wrong gradients of some parameters, and nothing else that is wrong in the same finding.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path

import yaml

from harness.errors import SpecError
from harness.language.document import Document, load, parse, validate
from harness.language.strict import Strict
from harness.program.ir import Program
from harness.results.cell import CellResult
from harness.results.findings import STEP, WHOLE_STEPS, Finding
from harness.runtime.labels import backend_of
from harness.runtime.native import calls_by_layer

# A difference accepted as known: the entries for it in ``known_differences.yaml``, to complete.


def accepted(result: CellResult, checks: Sequence[str]) -> str:
    """The text of a file that accepts what some checks of a cell have found, to be completed: an
    entry each, as one that fits a check that agrees is a fault."""
    cell, entries = result.cell, {}
    location, blame = result.location, result.blame.words if result.blame else ""
    words = f"{location.rstrip('.')}. {blame}" if location and blame else location or blame
    for check in checks:
        named = f"{cell.backend}-{cell.spec}-{cell.dtype}-{check}".lower()
        name = re.sub(r"[^a-z0-9]+", "-", named).strip("-")
        fields = {"backend": cell.backend, "spec": cell.spec, "dtype": cell.dtype}
        fields |= {"path": cell.path, "check": check, "version": result.version}
        entries[name] = {
            "summary": f"{check} of {cell.spec} differs on {cell.backend}.",
            "reason": words or "SAY WHY",
            "versions": result.version,
            "link": "SAY WHERE IT IS REPORTED",
            "match": {key: glob.escape(value) for key, value in fields.items()},
        }
    text: str = yaml.safe_dump({"differences": entries}, sort_keys=False, width=100)
    return text


# In ``specs/``, and in a user's folders; and what it was called there before.
FILE, FORMER = "known_differences.yaml", "differences.yaml"


class ParameterMatch(Strict):
    """The parameters whose gradients are wrong: shell patterns of their layer's definition, of its
    attributes by name, and of their shape (``1, 1, [1-7], *``)."""

    definition: str = "*"
    attributes: Mapping[str, int | str] = {}
    shape: str = "*"


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
    parameter: ParameterMatch | None = None


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

    def apply(self, result: CellResult, finding: Finding, program: Program) -> None:
        """Judge a finding of a cell again in the light of what is known; ``program`` is the one
        that was checked."""
        for name, entry in self.entries.items():
            if entry.match is None or not _matches(entry.match, result, finding.check):
                continue
            told = f"known difference {name}: {entry.summary}"
            if finding.verdict == "differ":
                named = entry.match.parameter
                # Results that come after several updates may be wrong by an earlier gradient.
                later = finding.check == WHOLE_STEPS and not finding.faults
                if named and not (
                    _only_gradients(finding, _names(entry.match, result, program))
                    or (later and any(f.excuse == told for f in result.findings))
                ):
                    continue
                finding.verdict, finding.excuse = "known-difference", told
                finding.faults.append(told)
            elif finding.verdict == "agree" and entry.shown_by is None:
                finding.verdict = "differ"
                finding.faults.append(
                    f"known difference {name} has vanished: take it out of {FILE}"
                )
            return
        if finding.verdict == "differ":
            finding.faults += self._of_its_layers(result, program)

    def _of_its_layers(self, result: CellResult, program: Program) -> list[str]:
        """What is known of the layers that ran in a cell, elsewhere: no excuse, but a hint."""
        return [
            f"it may be known difference {name}, which other checks have shown of {layer}: "
            f"{entry.summary}"
            for name, entry in self.entries.items()
            if (match := entry.match) is not None
            and (layer := match.layer) != "*"
            and (match.parameter is None or _names(match, result, program))
            and _matches(match.model_copy(update={"spec": "*", "check": "*"}), result, "")
        ]


def _matches(match: Match, result: CellResult, check: str) -> bool:
    found = {**result.cell.record(), "check": check, "version": result.version}
    found["backend"] = backend_of(result.cell.backend)
    return all(fnmatchcase(text, getattr(match, name)) for name, text in found.items()) and any(
        _ran(match, label)
        for label in result.layers.values() or [""]  # nothing was opened
    )


def _ran(match: Match, label: str) -> bool:
    """Whether one of the functions of a framework that ran a layer fits."""
    return any(fnmatchcase(part, match.layer) for part in label.split(", "))


def _names(match: Match, result: CellResult, program: Program) -> frozenset[str]:
    """The parameters of a program that fit, of layers that fit."""
    wanted = match.parameter or ParameterMatch()

    def fits(value: object, pattern: object) -> bool:
        # An attribute as it stands in a spec: 2 and not 2.0.
        return fnmatchcase(f"{value:g}" if isinstance(value, float) else str(value), str(pattern))

    return frozenset(
        f"{key}.{local}"
        for key, (layer, *_) in calls_by_layer(program).items()
        if _ran(match, result.layers.get(key, ""))
        and fnmatchcase(layer.definition, wanted.definition)
        and all(
            name in layer.attributes and fits(layer.attributes[name], pattern)
            for name, pattern in wanted.attributes.items()
        )
        for local, shape in layer.shapes.items()
        if fnmatchcase(", ".join(map(str, shape)), wanted.shape)
    )


def _only_gradients(finding: Finding, names: frozenset[str]) -> bool:
    """Whether all that is wrong are gradients of these parameters; of a training's steps, all in
    the first that is wrong, as later ones begin with its result."""
    wrong = [*finding.faults, *(d.name for d in finding.deviations if not d.agrees)]
    steps = [int(found[1]) if (found := STEP.search(text)) else 0 for text in wrong]
    first = [text for text, step in zip(wrong, steps, strict=True) if step == min(steps)]
    named = {*names, *(f"gradient.{name}" for name in names)}
    return bool(wrong) and all(named.intersection(text.split()) for text in first)


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
