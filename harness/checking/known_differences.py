"""Known differences: a list of faults of frameworks, each with a reason and a link to the
framework's issue.

An entry changes the verdict of matching findings (results of checks) from ``differ`` to
``known-difference``. If a matching finding agrees, the framework has been repaired: the check then
fails, and its message asks the user to remove the entry. Entries with ``shown_by`` are exempt from
this, because their differences appear only at some sizes. An entry with ``parameter`` only covers
wrong gradients of the matching parameters. If anything else in the finding is wrong, the finding
still differs.
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
from harness.language.axis_attributes import common_value
from harness.language.base_models import Strict
from harness.language.document import Document, load, parse, validate
from harness.program.ir import Program
from harness.results.cell import CellResult
from harness.results.findings import STEP, WHOLE_STEPS, Finding
from harness.runtime.labels import backend_of
from harness.runtime.native import calls_by_layer

# A user accepts a difference with an entry in ``known_differences.yaml``. The harness drafts the
# entry.


def draft_entries(result: CellResult, checks: Sequence[str]) -> str:
    """Return the text of a ``known_differences.yaml`` file that accepts the differing results of
    ``checks`` in one cell.

    Each check has a separate entry. If one entry covered several checks, it would become an error
    as soon as one of them agrees.
    """
    cell, entries = result.cell, {}
    location, blame = result.location, result.blame.words if result.blame else ""
    words = f"{location.rstrip('.')}. {blame}" if location and blame else location or blame
    for check in checks:
        text_name = f"{cell.backend}-{cell.spec}-{cell.dtype}-{check}".lower()
        name = re.sub(r"[^a-z0-9]+", "-", text_name).strip("-")
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


# The present name of the file, and its former name, which users' folders may still have.
FILE, FORMER = "known_differences.yaml", "differences.yaml"


class ParameterMatch(Strict):
    """Shell patterns that select parameters with wrong gradients. The patterns match the definition
    of the parameter's layer (e.g. ``dense``), attributes of this layer, and the parameter's shape,
    e.g. ``1, 1, [1-7], *``."""

    definition: str = "*"
    attributes: Mapping[str, int | str] = {}
    shape: str = "*"


class Match(Strict):
    """Shell patterns, e.g. ``lesson6/*``, that select findings (results of checks). An entry
    applies to a finding if all patterns match."""

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
    """A fault of a framework.

    ``match`` selects the findings that the fault explains; without ``match``, the backend's plugin
    works around the fault. ``shown_by`` names a test that passes as long as the framework has the
    fault. An entry with both ``match`` and ``shown_by`` is a fault that appears only at some sizes.
    """

    summary: str
    reason: str
    versions: str
    link: str
    match: Match | None = None
    shown_by: str | None = None


class DifferenceFile(Strict):
    """The contents of ``known_differences.yaml``."""

    differences: dict[str, Difference]


@dataclass
class Differences:
    """The known differences by name: the entries of the harness and the entries of the user."""

    entries: dict[str, Difference] = field(default_factory=dict)

    def apply(self, result: CellResult, finding: Finding, program: Program) -> None:
        """Change the verdict of ``finding`` (the result of a check) if a known difference matches
        it. ``result`` is the cell's result, and ``program`` the program that the check ran."""
        for name, entry in self.entries.items():
            if entry.match is None or not _matches(entry.match, result, finding.check):
                continue
            excuse = f"known difference {name}: {entry.summary}"
            if finding.verdict == "differ":
                parameter = entry.match.parameter
                # The result of an optimizer step may be wrong because of a gradient that the same
                # entry excuses.
                only_steps = finding.check == WHOLE_STEPS and not finding.faults
                if parameter and not (
                    _is_wrong_only_in(finding, _find_parameters(entry.match, result, program))
                    or (only_steps and any(f.excuse == excuse for f in result.findings))
                ):
                    continue
                finding.verdict, finding.excuse = "known-difference", excuse
                finding.faults.append(excuse)
            elif finding.verdict == "agree" and entry.shown_by is None:
                finding.verdict = "differ"
                finding.faults.append(
                    f"known difference {name} no longer occurs: remove it from {FILE}"
                )
            return
        if finding.verdict == "differ":
            finding.faults += self._list_hints(result, program)

    def _list_hints(self, result: CellResult, program: Program) -> list[str]:
        """Return a hint for each known difference that concerns a framework layer of this cell,
        because this difference may be the cause of the failure. Hints do not change the verdict."""
        return [
            f"this may be known difference {name}, which other checks found in {layer}: "
            f"{entry.summary}"
            for name, entry in self.entries.items()
            if (match := entry.match) is not None
            and (layer := match.layer) != "*"
            and (match.parameter is None or _find_parameters(match, result, program))
            and _matches(match.model_copy(update={"spec": "*", "check": "*"}), result, "")
        ]


def _matches(match: Match, result: CellResult, check: str) -> bool:
    fields = {**result.cell.record(), "check": check, "version": result.version}
    fields["backend"] = backend_of(result.cell.backend)
    return all(fnmatchcase(text, getattr(match, name)) for name, text in fields.items()) and any(
        _matches_layer(match, label)
        for label in result.layers.values() or [""]  # the session could not be opened
    )


def _matches_layer(match: Match, label: str) -> bool:
    """Return whether an entry's layer pattern matches a framework function. ``label`` lists the
    functions that ran one layer of the model, e.g. ``torch.nn.functional.linear, torch.relu``."""
    return any(fnmatchcase(part, match.layer) for part in label.split(", "))


def _find_parameters(match: Match, result: CellResult, program: Program) -> frozenset[str]:
    """Return the names of those parameters of the program that an entry with this ``match`` covers,
    e.g. ``out.W``."""
    patterns = match.parameter or ParameterMatch()

    def fits(value: object, pattern: object) -> bool:
        # Write values like in a spec: 2, not 2.0, and one value for all axes if they are equal.
        single = common_value(value)
        texts = (str(value), f"{single:g}" if isinstance(single, float) else str(single))
        return any(fnmatchcase(text, str(pattern)) for text in texts)

    return frozenset(
        f"{key}.{local}"
        for key, (layer, *_) in calls_by_layer(program).items()
        if _matches_layer(match, result.layers.get(key, ""))
        and fnmatchcase(layer.definition, patterns.definition)
        and all(
            name in layer.attributes and fits(layer.attributes[name], pattern)
            for name, pattern in patterns.attributes.items()
        )
        for local, shape in layer.shapes.items()
        if fnmatchcase(", ".join(map(str, shape)), patterns.shape)
    )


def _is_wrong_only_in(finding: Finding, names: frozenset[str]) -> bool:
    """Return whether all wrong results of a finding belong to the parameters ``names``.

    If the finding compares several training steps, only the first wrong step is examined, because
    this step makes later steps wrong.
    """
    wrong = [*finding.faults, *(d.name for d in finding.deviations if not d.agrees)]
    step_numbers = [int(match[1]) if (match := STEP.search(text)) else 0 for text in wrong]
    first = [
        text for text, step in zip(wrong, step_numbers, strict=True) if step == min(step_numbers)
    ]
    excused = {*names, *(f"gradient.{name}" for name in names)}
    return bool(wrong) and all(excused.intersection(text.split()) for text in first)


def known_differences(folders: Iterable[Path] = ()) -> Differences:
    """Read the known differences of the harness, and those in the ``known_differences.yaml`` files
    of the user's folders."""
    entries: dict[str, Difference] = {}
    shipped = files("harness.specs").joinpath(FILE)
    entries.update(_read_entries(parse(shipped.read_text(encoding="utf-8"), f"specs/{FILE}")))
    for folder in folders:
        for name in (FORMER, FILE):
            # If the path is not a regular file, ``load`` reports the error.
            if os.path.lexists(folder / name):
                entries.update(_read_entries(load(folder / name)))
    return Differences(entries)


def _read_entries(document: Document) -> dict[str, Difference]:
    entries = validate(document, DifferenceFile).differences
    for name, entry in entries.items():
        if entry.match is None and entry.shown_by is None:
            raise SpecError(
                f"{name}: add 'match' to select findings that differ, or 'shown_by' with the test "
                "that demonstrates the fault",
                document.place_of_key(("differences", name)),
            )
    return entries
