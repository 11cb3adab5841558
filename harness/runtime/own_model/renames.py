"""Read ``OURS=THEIRS`` rules, which say where a user's model holds a parameter of the spec.

``OURS`` is a parameter (``out.W``), a framework's tensor of a layer (``rnn.weight_ih_l0``), or a
layer with all its parameters (``rnn=gru``). A ``*`` matches one part of a name between dots, or a
piece of it, and stands for the same text in ``THEIRS``. ``THEIRS`` is an array of the model. It may
end in slices and a transposition as in numpy: ``attn.c_attn.weight[:32].T``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.errors import UsageError, did_you_mean, shorten

SUFFIX = re.compile(
    r"(?P<index>\[[^\[\]]*\])?(?P<turn>\.T|\.transpose\(\s*\d{1,2}(?:\s*,\s*\d{1,2})*\s*\))?$"
)
BOUND = re.compile(r"\s*(-?[0-9]{1,9})?\s*")


@dataclass(frozen=True)
class Rename:
    """A rule ``OURS=THEIRS``; ``ours`` holds the parts of the name between dots."""

    ours: tuple[str, ...]
    theirs: str

    @staticmethod
    def of(text: str) -> Rename:
        """Read ``OURS=THEIRS``; raise :class:`UsageError` for any other text."""
        ours, equals, theirs = (part.strip() for part in text.partition("="))
        if not ours or not equals or not theirs:
            raise UsageError(
                f"--map takes OURS=THEIRS, such as rnn=gru or out.W=fc.weight.T; found {text!r}"
            )
        if ours.count("*") < theirs.count("*"):
            raise UsageError(f"--map {text!r}: {theirs} has more '*' than {ours}")
        return Rename(tuple(ours.split(".")), theirs)

    def renamed(self, name: str) -> str | None:
        """Return the model's name for a name of the spec; None if the rule does not match."""
        parts = name.split(".")
        head, rest = parts[: len(self.ours)], parts[len(self.ours) :]
        if len(head) < len(self.ours):
            return None
        stars: list[str] = []
        for pattern, part in zip(self.ours, head, strict=True):
            texts = _stars(pattern, part)
            if texts is None:
                return None
            stars += texts
        first, *others = self.theirs.split("*")
        theirs = first + "".join(map("".join, zip(stars, others, strict=False)))
        return ".".join([theirs, *rest])


def _stars(pattern: str, part: str) -> list[str] | None:
    """Return the text that each ``*`` of a pattern matches; None if the pattern does not match.

    The first star matches as much as possible, because the search starts at the end.
    """
    first, *texts = pattern.split("*")
    if not texts:
        return [] if part == pattern else None
    if not part.startswith(first) or not part.endswith(texts[-1]):
        return None
    matches: list[str] = []
    end = len(part)
    for text in reversed(texts):
        start = part.rfind(text, len(first), end)
        if start < 0:
            return None
        matches.append(part[start + len(text) : end])
        end = start
    # found[0] is the text after the last match, which is empty.
    return [part[len(first) : end], *matches[:0:-1]]


def renamed(name: str, rules: Iterable[Rename]) -> tuple[str, Rename | None]:
    """Apply the most specific matching rule; return the new name and the rule.

    If no rule matches, return the old name and None.
    """
    found = [(rule, new) for rule in rules if (new := rule.renamed(name)) is not None]
    if not found:
        return name, None
    rule, new = max(found, key=lambda each: (len(each[0].ours), -each[0].ours.count("*")))
    return new, rule


@dataclass(frozen=True)
class ArrayPart:
    """A part of an array of the model: ``theirs[index].transpose(axes)``."""

    key: str
    index: tuple[Any, ...] = ()
    axes: tuple[int, ...] | None = None
    text: str = ""

    def of(self, array: Array) -> Array:
        """Return the part as a view of the array; numpy raises if the array has no such part."""
        part = array[(*self.index, ...)]
        return part if self.axes is None else part.transpose(self.axes or None)

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """Return the part's shape in an array of shape ``whole``; numpy raises if it has none."""
        return self.of(np.broadcast_to(np.zeros((), np.bool_), whole)).shape

    def is_cut(self, whole: tuple[int, ...]) -> bool:
        """Return whether a slice exceeds an array of shape ``whole``; numpy would shorten it."""
        pairs = zip(self.index, whole, strict=False)
        return any(isinstance(i, slice) and (i.stop or 0) > length for i, length in pairs)

    def __str__(self) -> str:
        return self.text or self.key


def view_of(text: str, keys: Collection[str]) -> ArrayPart | None:
    """Return the part of an array that a text names; None if the model has no such array.

    Raises:
        UsageError: the slices are malformed.
    """
    if text in keys:
        return ArrayPart(text, text=text)
    # Find the first position after which only slices and a transposition follow.
    for start in range(1, len(text)):
        key, rest = text[:start], text[start:]
        if key in keys and (match := SUFFIX.match(rest)) is not None:
            index = match["index"]
            return ArrayPart(key, _index(index, text) if index else (), _axes(match["turn"]), text)
    return None


def _axes(turn: str | None) -> tuple[int, ...] | None:
    if turn is None:
        return None
    return () if turn == ".T" else tuple(int(n) for n in re.findall(r"\d+", turn))


def _index(text: str, full_text: str) -> tuple[Any, ...]:
    items: list[Any] = []
    for item in text[1:-1].split(","):
        parts = item.split(":")
        matches = [BOUND.fullmatch(part) for part in parts]
        if len(parts) > 3 or not all(matches) or (len(parts) == 1 and not item.strip()):
            raise UsageError(
                f"--map: {full_text!r} has the invalid index {item.strip()!r}; allowed are numbers "
                "and slices, such as [0, 3:7]"
            )
        numbers = [int(m[1]) if m and m[1] else None for m in matches]
        items.append(slice(*numbers) if len(parts) > 1 else numbers[0])
    return tuple(items)


def fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Return whether splitting or joining neighbouring axes turns one shape into the other."""
    if np.prod(found, dtype=int) != np.prod(wanted, dtype=int):
        return False
    one, other = [n for n in found if n != 1], [n for n in wanted if n != 1]
    return one == other or _refines(one, other) or _refines(other, one)


def _refines(fine: list[int], coarse: list[int]) -> bool:
    """Return whether joining neighbouring axes of ``fine`` gives ``coarse``."""
    at = 0
    for length in coarse:
        product = 1
        while at < len(fine) and product < length:
            product *= fine[at]
            at += 1
        if product != length:
            return False
    return at == len(fine)


def hint(text: str, keys: Collection[str]) -> str:
    """Return the end of a message: a similar name, and a list of all names."""
    listed = shorten(", ".join(keys), 200) or "none"
    return f"{did_you_mean(text, keys)} (the model has: {listed})"
