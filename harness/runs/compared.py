"""Two runs side by side, of checks or of speeds: what is not the same around them, and the words
in which their changes are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from harness.output.markdown import escaped

# What stands for an entry that a run does not have.
NONE = "none"
# Digits that moved of so many cells and pairs are shown, those that lost most first.
MOST_MOVED = 10


@dataclass(frozen=True)
class Differing:
    """An entry that two runs do not share: a version, a variable, a processor.

    ``of`` are the backends or specs that it is about, none where it is about the whole run. An
    entry with ``words`` is one whose values say nothing to a person, such as a checksum.
    """

    what: str
    old: str
    new: str
    of: tuple[str, ...] = ()
    words: str = ""

    def record(self) -> dict[str, object]:
        """As plain data."""
        return {**asdict(self), "text": str(self)}

    def __str__(self) -> str:
        named = ", ".join(self.of)
        if self.words:
            return f"{self.words}: {named}" if named else self.words
        what = f"{self.what} of {named}" if named else self.what
        return f"{what}: {became(*(None if t == NONE else t for t in (self.old, self.new)))}"


def became(old: str | None, new: str | None) -> str:
    """In words, what an entry was and what it is; None where it is not there."""
    if old is None:
        return f"{new} where there was {NONE}"
    return f"{NONE} where there was {old}" if new is None else f"{old} became {new}"


def differing(
    old: Mapping[str, object],
    new: Mapping[str, object],
    of: tuple[str, ...] = (),
    words: Mapping[str, str] | None = None,
) -> list[Differing]:
    """The entries of two flat maps that are not the same; ``words`` are those of checksums."""
    words = words or {}
    return [
        Differing(name, _text(old.get(name)), _text(new.get(name)), of, words.get(name, ""))
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def merged(found: Iterable[Differing]) -> list[Differing]:
    """The same entry of several backends or specs becomes one."""
    together: dict[Differing, dict[str, None]] = {}
    first: dict[Differing, Differing] = {}
    for each in found:
        # Checksums that have changed are not the same for two specs.
        alike = replace(each, of=()) if not each.words else Differing(each.what, "", "")
        first.setdefault(alike, each)
        together.setdefault(alike, {}).update(dict.fromkeys(each.of))
    return [replace(first[alike], of=tuple(of)) for alike, of in together.items()]


def _text(value: object) -> str:
    return NONE if value is None else str(value)


def unreached(which: str, how: str) -> str:
    """In words, that of some cells of a run nothing is known; ``how`` far it came."""
    return f"{which} was {how}: the others are not compared"


@dataclass(frozen=True)
class MovedDigits:
    """Digits of agreement before and now. ``of`` names a cell, or two backends and their cell."""

    of: str
    old: float
    new: float

    def record(self) -> dict[str, object]:
        """As plain data."""
        return {**asdict(self), "text": str(self)}

    def __str__(self) -> str:
        return f"{self.of}: {self.old:.1f}, now {self.new:.1f}"


class Change(Protocol):
    """One change of one cell, of whatever kind of run."""

    @property
    def kind(self) -> str:
        """One of the kinds of its run."""

    @property
    def worse(self) -> bool:
        """Whether it counts: exit code 1."""

    def record(self) -> dict[str, object]:
        """As plain data."""


UNCHANGED = "nothing changed"
MOVED = "digits of agreement that moved"
# In words, one and several.
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


def counted(changes: Sequence[Change], moved: Sequence[MovedDigits] = (), unsure: str = "") -> str:
    """``2 new differences, 1 lost; not worse: 3 new``; without any change, that nothing got worse
    although digits moved, or that nothing changed. ``unsure`` says of what nothing is known."""
    worse, others = (_counts([c for c in changes if c.worse is side]) for side in (True, False))
    if worse and others:
        told = f"{worse}; not worse: {others}"
    elif worse or others:
        told = worse or f"nothing is worse: {others}"
    elif moved:
        told = "nothing got worse; digits moved"
    else:
        return f"{unsure}; nothing else changed" if unsure else UNCHANGED
    return f"{told}; {unsure}" if unsure else told


def shown_digits(moved: Sequence[MovedDigits], where: str = "") -> list[str]:
    """Return the digits that moved in words, and how many more there are; ``where`` those are."""
    left = len(moved) - MOST_MOVED
    return [*map(str, moved[:MOST_MOVED]), *([f"and {left} more{where}"] if left > 0 else [])]


@dataclass(frozen=True)
class RunChanges:
    """All changes between two runs, and what is not the same around them.

    ``what`` stands before the count of changes: since when, or beyond what. ``limits`` say what
    could not be compared. ``moved`` are digits that are not what they were, those that lost most
    first; most of them are no change, as the model or its rounding errors are others. ``unsure``
    says in how many cells a change could not be seen.
    """

    environment: Sequence[Differing]
    changes: Sequence[Change]
    what: str = ""
    limits: Sequence[str] = ()
    moved: Sequence[MovedDigits] = ()
    unsure: str = ""

    @property
    def exit_code(self) -> int:
        """1 if anything is worse than it was, else 0."""
        return int(any(change.worse for change in self.changes))

    @property
    def sentence(self) -> str:
        """How many changes of each kind, and since when or beyond what."""
        told = counted(self.changes, self.moved, self.unsure)
        return f"{self.what}: {told}" if self.what else told

    def lines(self) -> list[str]:
        """For people: the environment, the changes under headings, and how many there are."""
        found = [*self.limits, *(f"not the same: {each}" for each in self.environment)]
        for heading, changes in self._headed().items():
            found += [f"{heading}:", *(f"  {change}" for change in changes)]
        if self.moved:
            found += [f"{MOVED}:", *(f"  {text}" for text in self._shown())]
        return [*found, self.sentence]

    def markdown(self) -> str:
        """For a pull request, or the summary of a step."""
        found = [f"**{escaped(self.sentence)}**", ""]
        found += [text for limit in self.limits for text in (escaped(limit), "")]
        for heading, changes in self._headed().items():
            found += [f"{heading}:", "", *(f"- {escaped(str(change))}" for change in changes), ""]
        if self.moved:
            found += [f"{MOVED}:", "", *(f"- {escaped(text)}" for text in self._shown()), ""]
        if self.environment:
            found += ["not the same:", "", *(f"- {escaped(str(e))}" for e in self.environment), ""]
        return "\n".join(found)

    def record(self) -> dict[str, object]:
        """As plain data."""
        return {
            "environment": [each.record() for each in self.environment],
            "changes": [change.record() for change in self.changes],
            "limits": list(self.limits),
            "digits": [each.record() for each in self.moved],
        }

    def _shown(self) -> list[str]:
        return shown_digits(self.moved, " (--json has all)")

    def _headed(self) -> dict[str, list[Change]]:
        found: dict[str, list[Change]] = {}
        for change in self.changes:
            heading = HEADINGS[change.kind][1]
            found.setdefault(heading if change.worse else f"{heading} (not worse)", []).append(
                change
            )
        return found


def _counts(changes: Sequence[Change]) -> str:
    kinds = [c.kind for c in changes]
    return ", ".join(
        f"{kinds.count(kind)} {HEADINGS[kind][kinds.count(kind) > 1]}"
        for kind in dict.fromkeys(kinds)
    )
