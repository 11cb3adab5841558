"""The result of comparing two runs of ``check`` or of ``bench``, as text: changes of the
environment, and changes of cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from harness.errors import EXIT_FAILED, EXIT_PASSED
from harness.output.markdown import escaped

# The text for an entry that is missing in a run.
NONE = "none"
# At most this many changes of digits are printed.
MOST_MOVED = 10


@dataclass(frozen=True)
class ConditionChange:
    """A fact about the environment that differs between two runs, e.g. a version or the processor.

    ``of`` names the backends or specs with this difference; it is empty if the whole run has it.
    ``words`` is a text to print instead of values that readers cannot interpret, e.g. checksums.
    """

    what: str
    old: str
    new: str
    of: tuple[str, ...] = ()
    words: str = ""

    def record(self) -> dict[str, object]:
        """Return a dictionary with the fields, and the difference as ``text``, for JSON output."""
        return {**asdict(self), "text": str(self)}

    def __str__(self) -> str:
        named = ", ".join(self.of)
        if self.words:
            return f"{self.words}: {named}" if named else self.words
        what = f"{self.what} of {named}" if named else self.what
        return (
            f"{what}: {describe_change(*(None if t == NONE else t for t in (self.old, self.new)))}"
        )


def describe_change(old: str | None, new: str | None) -> str:
    """Describe a change of a value, e.g. ``2.1 became 2.2``; None stands for a missing value."""
    if old is None:
        return f"now {new} (before: {NONE})"
    return f"now {NONE} (before: {old})" if new is None else f"{old} became {new}"


def find_differences(
    old: Mapping[str, object],
    new: Mapping[str, object],
    of: tuple[str, ...] = (),
    words: Mapping[str, str] | None = None,
) -> list[ConditionChange]:
    """Compare two mappings from names to values, and return the entries that differ. ``of`` names
    the backends or specs that the mappings describe. ``words`` maps a name to a text that is
    printed instead of its values, e.g. because they are checksums."""
    words = words or {}
    return [
        ConditionChange(name, _text(old.get(name)), _text(new.get(name)), of, words.get(name, ""))
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def merge_equal(differences: Iterable[ConditionChange]) -> list[ConditionChange]:
    """Combine differences that are the same for several backends or specs. The result has one
    difference for all of them."""
    together: dict[ConditionChange, dict[str, None]] = {}
    first: dict[ConditionChange, ConditionChange] = {}
    for each in differences:
        # The checksums of different specs always differ, so combine them whatever their values are.
        key = replace(each, of=()) if not each.words else ConditionChange(each.what, "", "")
        first.setdefault(key, each)
        together.setdefault(key, {}).update(dict.fromkeys(each.of))
    return [replace(first[key], of=tuple(of)) for key, of in together.items()]


def _text(value: object) -> str:
    return NONE if value is None else str(value)


def describe_unreached(which: str, how: str) -> str:
    """Return a sentence that says that the cells which a run did not reach are not compared.

    ``which`` names the run; ``how`` says how it ended, e.g. ``stopped after 3 of 10 cells``.
    """
    return f"{which} was {how}: the other cells are not compared"


@dataclass(frozen=True)
class MovedDigits:
    """A number of correct digits that changed from ``old`` (in the older run) to ``new``. ``of``
    names the cell. If the digits are those of two backends compared with each other, ``of`` also
    names the two backends."""

    of: str
    old: float
    new: float

    def record(self) -> dict[str, object]:
        """Return a dictionary with the fields, and the change as ``text``, for JSON output."""
        return {**asdict(self), "text": str(self)}

    def __str__(self) -> str:
        return f"{self.of}: {self.old:.1f}, now {self.new:.1f}"


class Change(Protocol):
    """A change of one cell (a model on a backend) between two runs of checks or of benchmarks."""

    @property
    def kind(self) -> str:
        """The kind of the change, e.g. "slower": a key of :data:`HEADINGS`."""

    @property
    def worse(self) -> bool:
        """True if the change is for the worse, which makes the exit code 1."""

    def record(self) -> dict[str, object]:
        """Return a dictionary that describes the change, for JSON output."""


UNCHANGED = "nothing changed"
MOVED = "changed digits of agreement"
# The singular and the plural of each kind of change.
HEADINGS: Mapping[str, tuple[str, str]] = {
    "new-difference": ("new difference", "new differences"),
    "verdict-changed": ("changed verdict", "changed verdicts"),
    "accuracy-lost": ("less accurate", "less accurate"),
    "accuracy-gained": ("more accurate", "more accurate"),
    "slower": ("slower", "slower"),
    "faster": ("faster", "faster"),
    "lost": ("lost", "lost"),
    "repaired": ("repaired", "repaired"),
    "new-cell": ("new", "new"),
}


def count_changes(
    changes: Sequence[Change], moved: Sequence[MovedDigits] = (), unsure: str = ""
) -> str:
    """Return the number of changes of each kind as text, e.g. ``2 new differences, 1 lost; not
    worse: 3 new``. If nothing changed, the text says so. ``unsure`` is a text about cells in which
    a change could not be seen."""
    worse, others = (
        _count_kinds([c for c in changes if c.worse is side]) for side in (True, False)
    )
    if worse and others:
        counts = f"{worse}; not worse: {others}"
    elif worse or others:
        counts = worse or f"nothing is worse: {others}"
    elif moved:
        counts = "nothing got worse; some digits changed"
    else:
        return f"{unsure}; nothing else changed" if unsure else UNCHANGED
    return f"{counts}; {unsure}" if unsure else counts


def list_moved_digits(moved: Sequence[MovedDigits], where: str = "") -> list[str]:
    """Return a line for each changed number of digits, at most :data:`MOST_MOVED` lines. If there
    are more, the last line says so; ``where`` is added to it, and says how to see the others."""
    left = len(moved) - MOST_MOVED
    return [*map(str, moved[:MOST_MOVED]), *([f"and {left} more{where}"] if left > 0 else [])]


@dataclass(frozen=True)
class RunChanges:
    """The changes of cells between two runs, and the differences between the runs' environments.

    - ``what`` is text before the numbers of changes, e.g. "since" and the name of a run, or "beyond
      10% and the noise".
    - ``limits`` are texts about what could not be compared.
    - ``moved`` has changed numbers of digits, the largest loss first.
    - ``unsure`` is a text that says in how many cells a change could not be seen.
    """

    environment: Sequence[ConditionChange]
    changes: Sequence[Change]
    what: str = ""
    limits: Sequence[str] = ()
    moved: Sequence[MovedDigits] = ()
    unsure: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code: 1 if a change is for the worse, else 0."""
        return EXIT_FAILED if any(change.worse for change in self.changes) else EXIT_PASSED

    @property
    def sentence(self) -> str:
        """A sentence with the numbers of changes of each kind, introduced by ``what``."""
        counts = count_changes(self.changes, self.moved, self.unsure)
        return f"{self.what}: {counts}" if self.what else counts

    def lines(self) -> list[str]:
        """Return the comparison as lines of text: the differences of the environment, the changes
        under headings, and the numbers of changes."""
        texts = [*self.limits, *(f"different: {each}" for each in self.environment)]
        for heading, changes in self._by_heading().items():
            texts += [f"{heading}:", *(f"  {change}" for change in changes)]
        if self.moved:
            texts += [f"{MOVED}:", *(f"  {text}" for text in self._moved_lines())]
        return [*texts, self.sentence]

    def markdown(self) -> str:
        """Return the changes in Markdown, for a pull request or the summary of a workflow step."""
        texts = [f"**{escaped(self.sentence)}**", ""]
        texts += [text for limit in self.limits for text in (escaped(limit), "")]
        for heading, changes in self._by_heading().items():
            texts += [f"{heading}:", "", *(f"- {escaped(str(change))}" for change in changes), ""]
        if self.moved:
            texts += [f"{MOVED}:", "", *(f"- {escaped(text)}" for text in self._moved_lines()), ""]
        if self.environment:
            texts += ["different:", "", *(f"- {escaped(str(e))}" for e in self.environment), ""]
        return "\n".join(texts)

    def record(self) -> dict[str, object]:
        """Return a dictionary of lists for JSON output, with the keys ``environment``, ``changes``,
        ``limits`` and ``digits``."""
        return {
            "environment": [each.record() for each in self.environment],
            "changes": [change.record() for change in self.changes],
            "limits": list(self.limits),
            "digits": [each.record() for each in self.moved],
        }

    def _moved_lines(self) -> list[str]:
        return list_moved_digits(self.moved, " (--json has all)")

    def _by_heading(self) -> dict[str, list[Change]]:
        by_heading: dict[str, list[Change]] = {}
        for change in self.changes:
            heading = HEADINGS[change.kind][1]
            by_heading.setdefault(heading if change.worse else f"{heading} (not worse)", []).append(
                change
            )
        return by_heading


def _count_kinds(changes: Sequence[Change]) -> str:
    kinds = [c.kind for c in changes]
    return ", ".join(
        f"{kinds.count(kind)} {HEADINGS[kind][kinds.count(kind) > 1]}"
        for kind in dict.fromkeys(kinds)
    )
