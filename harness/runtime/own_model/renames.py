"""Read ``OURS=THEIRS`` rules, which say where a user's model holds a parameter of the spec.

``OURS`` is a parameter (``out.W``), a framework's tensor of a layer (``rnn.weight_ih_l0``), or a
layer with all its parameters (``rnn=gru``). A ``*`` matches one part of a name between dots, or a
piece of it, and stands for the same text in ``THEIRS``. ``THEIRS`` is an array of the model. It may
end in slices and a transposition as in numpy: ``attn.c_attn.weight[:32].T``. Slices may contain the
spec's sizes: ``[rank:rank + states]``. ``THEIRS`` may also be a sum of such arrays:
``rnn.bias_ih + rnn.bias_hh``. If ``OURS`` is ``-``, the spec does not have the array ``THEIRS``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.errors import UsageError, did_you_mean, shorten
from harness.program.ir import Program
from harness.runtime.own_model.contract import ModelArray

SUFFIX = re.compile(
    r"(?P<index>\[[^\[\]]*\])?(?P<turn>\.T|\.transpose\(\s*\d{1,2}(?:\s*,\s*\d{1,2})*\s*\))?$"
)
# A bound of a slice: a sum of products of numbers and sizes, or nothing.
FACTOR = r"\s*([0-9]{1,9}|[A-Za-z_]\w*)\s*"
BOUND = re.compile(rf"\s*-?{FACTOR}([-+*]{FACTOR})*|\s*")
TERM = re.compile(r"([-+]?)([^-+]+)")
# A ``*`` that stands for a text; ``[2 * units]`` is a product.
STAR = re.compile(r"\*(?!\s*\w[^\[]*\])")
# A plus sign between two arrays of a sum; the plus signs inside brackets belong to a slice.
PLUS = re.compile(r"\s\+\s(?![^\[]*\])")


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
        for part in PLUS.split(theirs):
            if ours.count("*") < len(STAR.findall(part)):
                raise UsageError(f"--map {text!r}: {part} has more '*' than {ours}")
        return Rename(tuple(ours.split(".")), theirs)

    @property
    def leaves_out(self) -> bool:
        """True if the spec does not have the array ``theirs``."""
        return self.ours == ("-",)

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
        summands = []
        for text in PLUS.split(self.theirs):
            first, *others = STAR.split(text)
            theirs = first + "".join(map("".join, zip(stars, others, strict=False)))
            summands.append(".".join([theirs, *rest]))
        return " + ".join(summands)

    def __str__(self) -> str:
        return f"{'.'.join(self.ours)}={self.theirs}"


def read_rules(texts: Iterable[str]) -> list[Rename]:
    """Read rules; raise one :class:`UsageError` for all texts that are no rule."""
    rules, errors = list[Rename](), list[str]()
    for text in texts:
        try:
            rules.append(Rename.of(text))
        except UsageError as error:
            errors.append(str(error))
    if errors:
        raise UsageError("\n".join(errors))
    return rules


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
    # matches[0] is the text after the last match, which is empty.
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


def views_of(
    text: str, keys: Collection[str], sizes: Mapping[str, int]
) -> tuple[ArrayPart, ...] | None:
    """Return the parts of arrays whose sum a text names; None if the model lacks one of the arrays.

    Raises:
        UsageError: the slices are malformed, or contain a size that is not in ``sizes``.
    """
    if text in keys:
        return (ArrayPart(text, text=text),)
    views = [view_of(part, keys, sizes) for part in PLUS.split(text)]
    return None if None in views else tuple(view for view in views if view is not None)


def view_of(text: str, keys: Collection[str], sizes: Mapping[str, int]) -> ArrayPart | None:
    """Return the part of one array that a text names; see :func:`views_of`."""
    if text in keys:
        return ArrayPart(text, text=text)
    # Find the first position after which only slices and a transposition follow.
    for start in range(1, len(text)):
        key, rest = text[:start], text[start:]
        if key in keys and (match := SUFFIX.match(rest)) is not None:
            index = _index(match["index"], text, sizes) if match["index"] else ()
            return ArrayPart(key, index, _axes(match["turn"]), text)
    return None


def _axes(turn: str | None) -> tuple[int, ...] | None:
    if turn is None:
        return None
    return () if turn == ".T" else tuple(int(n) for n in re.findall(r"\d+", turn))


def _index(text: str, full_text: str, sizes: Mapping[str, int]) -> tuple[Any, ...]:
    items: list[Any] = []
    for item in text[1:-1].split(","):
        bounds = [bound.strip() for bound in item.split(":")]
        if len(bounds) > 3 or not all(map(BOUND.fullmatch, bounds)) or bounds == [""]:
            raise UsageError(
                f"--map: {full_text!r} has the invalid index {item.strip()!r}; allowed are "
                "numbers, sizes of the spec, and slices, such as [0, 3:7, units:2 * units]"
            )
        numbers = [_number(bound, full_text, sizes) if bound else None for bound in bounds]
        items.append(slice(*numbers) if len(bounds) > 1 else numbers[0])
    return tuple(items)


def _number(bound: str, full_text: str, sizes: Mapping[str, int]) -> int:
    """Compute a sum of products of numbers and sizes, such as ``rank + 2 * states``."""

    def factor(text: str) -> int:
        text = text.strip()
        if text.isdecimal():
            return int(text)
        if text not in sizes:
            raise UsageError(
                f"--map: the spec has no size {text!r}, which the index of {full_text!r} contains"
                f"{did_you_mean(text, sizes)} (it has: {', '.join(sizes) or 'none'})"
            )
        return sizes[text]

    terms = TERM.findall(bound)
    return sum((-1 if sign == "-" else 1) * prod(map(factor, t.split("*"))) for sign, t in terms)


def split_sum(array: Array, count: int) -> Iterator[Array]:
    """Split an array into random summands. A model that uses only some of them is then wrong.

    Each float32 number is exactly the sum of its summands, which are float32 numbers too.
    """
    random = np.random.default_rng(count)
    for _ in range(count - 1):
        step = np.spacing(np.abs(array).astype(np.float32)).astype(np.float64)
        share = np.rint(random.uniform(0.25, 0.75, array.shape) * array / step) * step
        yield share
        array = array - share
    yield array


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


def list_some(names: Sequence[str], most: int = 8) -> str:
    """Return a list of the first names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shorten(name, 120) for name in names[:most]) + more


def hint(text: str, keys: Collection[str]) -> str:
    """Return the end of a message: a similar name, and a list of all names."""
    listed = shorten(", ".join(keys), 200) or "none"
    return f"{did_you_mean(SUFFIX.sub('', text), keys)} (the model has: {listed})"


def expected_arrays(program: Program, rules: Sequence[Rename]) -> dict[str, ModelArray]:
    """Return the program's arrays by the names that rules give them, as the model has them."""
    arrays = {}
    for port in (*program.parameters, *program.statistics):
        for text in PLUS.split(renamed(port.name, rules)[0]):
            turned, shape = text.endswith(".T"), program.shape(port)
            arrays[text.removesuffix(".T")] = ModelArray(shape[::-1] if turned else shape)
    return arrays
