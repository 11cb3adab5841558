"""Conversion of a text to a spec's input and target arrays: characters to indices, and windows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from harness.arrays import Array, IndexArray
from harness.errors import UsageError

PADDING = "\0"
CODE_POINTS = 0x110000


@dataclass(frozen=True)
class Vocabulary:
    """The characters of a text; a character's index is its position in ``characters``.

    ``characters`` starts with the padding character; the characters of the text follow in ascending
    order. A text never contains the padding character, so index 0 never occurs in data.

    Raises:
        UsageError: ``characters`` does not start with the padding or is not in ascending order.
    """

    characters: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.characters[:1] != (PADDING,):
            raise UsageError(f"a vocabulary must start with the padding character {PADDING!r}")
        for character in self.characters:
            if len(character) != 1:
                raise UsageError(
                    f"a vocabulary must contain single characters, found {character!r}"
                )
        if self.characters != tuple(sorted(set(self.characters))):
            raise UsageError("the characters of a vocabulary must be distinct and ascending")

    @classmethod
    def of(cls, text: str | Iterable[str]) -> Vocabulary:
        """Return the vocabulary of a text, which is one string or an iterable of its pieces.

        Raises:
            UsageError: the text is empty or contains the padding character.
        """
        seen, length, padding = np.zeros(CODE_POINTS, np.bool_), 0, -1
        for piece in [text] if isinstance(text, str) else text:
            seen[_code_points(piece)] = True
            if seen[0] and padding < 0:
                padding = length + piece.index(PADDING)
            length += len(piece)
        if not length:
            raise UsageError("the text is empty, so it has no characters for a vocabulary")
        if padding >= 0:
            raise UsageError(
                f"the text contains the padding character {PADDING!r} at position "
                f"{padding}; remove it from the text"
            )
        return cls((PADDING, *map(chr, np.flatnonzero(seen))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> IndexArray:
        """Return the index of every character, shape ``[len(text)]``.

        Raises:
            UsageError: a character is not in the vocabulary.
        """
        indices = self.narrow(text)
        unknown = np.flatnonzero(indices == len(self))
        if unknown.size:
            position = int(unknown[0])
            raise UsageError(
                f"unknown character {text[position]!r} at position {position}; "
                f"known are {''.join(self.characters[1:])!r} and the padding {PADDING!r}"
            )
        return indices.astype(np.int64)

    def narrow(self, text: str) -> Array:
        """Return the index of every character in the smallest unsigned dtype that is wide enough,
        to save memory. A character that is not in the vocabulary gets the index ``len(self)``."""
        return np.take(self._table, _code_points(text), mode="clip")

    @cached_property
    def _table(self) -> Array:
        """An array that maps each Unicode code point to a character's index, or to ``len(self)`` if
        the character is not in the vocabulary. The last entry stands for all higher code points."""
        points = _code_points("".join(self.characters))
        table = np.full(int(points[-1]) + 2, len(self), np.min_scalar_type(len(self)))
        table[points] = np.arange(len(self))
        return table

    def decode(self, indices: npt.ArrayLike) -> str:
        """Return the characters of ``indices``, shape ``[length]``.

        Raises:
            UsageError: an index has no character.
        """
        checked = _checked_indices(indices, len(self), "the vocabulary")
        points = _code_points("".join(self.characters)).astype("<u4")[checked.ravel()]
        return points.tobytes().decode("utf-32-le", "surrogatepass")

    def check_classes(self, classes: int) -> None:
        """Check that ``classes``, the number of classes of a model, covers the whole vocabulary.

        More classes than characters are allowed; the additional classes never occur in data.

        Raises:
            UsageError: there are fewer classes than characters.
        """
        if classes < len(self):
            raise UsageError(
                f"{classes} classes are too few: the text has {len(self) - 1} distinct characters "
                f"and the padding, so at least {len(self)} are needed"
            )


def _code_points(text: str) -> Array:
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _checked_indices(indices: npt.ArrayLike, limit: int, of: str) -> IndexArray:
    array = np.asarray(indices)
    if array.size and array.dtype.kind not in "iu":
        raise UsageError(f"indices must be whole numbers, found {array.dtype}")
    wrong = np.argwhere((array < 0) | (array >= limit))
    if len(wrong):
        position = tuple(int(axis) for axis in wrong[0])
        raise UsageError(
            f"index {array[position]} at position {list(position)} is outside {of}: "
            f"0 to {limit - 1} are allowed"
        )
    return array.astype(np.int64)


def windows(indices: Array, length: int, stride: int, offset: int = 0, drop_last: int = 0) -> Array:
    """Return windows of ``length`` indices that start ``stride`` apart, shape ``[rows, length]``.

    Row r is ``indices[r * stride + offset:][:length]``. With offset 0 the windows are inputs; with
    offset 1 they are the targets of these inputs: each entry is the next character. The number of
    rows does not depend on ``offset``. The last ``drop_last`` rows are left out. The result is a
    read-only view of ``indices``.

    Raises:
        UsageError: the text is too short for one row, a row would pass the end of the text, or an
            argument is out of range.
    """
    rows = _check_rows(len(indices), length, stride, offset, drop_last, width=length)
    every = np.lib.stride_tricks.sliding_window_view(indices, length)
    return every[offset::stride][:rows]


def column(indices: Array, length: int, stride: int, offset: int = 0, drop_last: int = 0) -> Array:
    """Return one character index for each of the windows that :func:`windows` returns for the same
    ``length`` and ``stride``: shape ``[rows]``.

    Row r is ``indices[r * stride + offset]``. With an offset below ``length``, this is a character
    in the window. With ``offset=length``, it is the character after the window. The result is a
    view of ``indices``.

    Raises:
        UsageError: the text is too short for one row, a row would pass the end of the text, or an
            argument is out of range.
    """
    rows = _check_rows(len(indices), length, stride, offset, drop_last, width=1)
    return indices[offset::stride][:rows]


def row_count(size: int, length: int, stride: int, drop_last: int) -> int:
    """Return the number of windows of ``length`` characters in a text of ``size`` characters,
    without the last ``drop_last`` windows. The result is below 1 if the text is too short."""
    return len(range(0, size - 1 - length, stride)) - drop_last


def _check_rows(
    size: int, length: int, stride: int, offset: int, drop_last: int, width: int
) -> int:
    """Check the arguments of :func:`windows` or :func:`column`; return the number of rows. A row
    needs ``width`` characters from its first character on."""
    smallest = {"length": (length, 1), "stride": (stride, 1), "offset": (offset, 0)}
    smallest["drop_last"] = (drop_last, 0)
    for name, (value, minimum) in smallest.items():
        if value < minimum:
            raise UsageError(f"{name} must be at least {minimum}, found {value}")
    rows = row_count(size, length, stride, drop_last)
    if rows < 1:
        raise UsageError(
            f"the text is too short: {size} characters, but windows of {length} with stride "
            f"{stride}, without the last {drop_last} windows, need at least "
            f"{length + 2 + drop_last * stride}"
        )
    last = (rows - 1) * stride + offset + width - 1
    if last >= size:
        raise UsageError(
            f"offset {offset} is too large: the last row would end at character {last}, but the "
            f"text ends at {size - 1}; at most {offset - (last - size + 1)} is allowed"
        )
    return rows


def one_hot(indices: npt.ArrayLike, classes: int, dtype: npt.DTypeLike = np.float64) -> Array:
    """Return a one-hot vector for each index (1 at the index, else 0): the shape ``[...]`` becomes
    ``[..., classes]``.

    Raises:
        UsageError: an index is negative, or not below ``classes``.
    """
    return hot_rows(_checked_indices(indices, classes, f"the {classes} classes"), classes, dtype)


def hot_rows(indices: Array, classes: int, dtype: npt.DTypeLike) -> Array:
    """Return a one-hot vector for each index like :func:`one_hot`, but without checking that the
    indices are in range."""
    # Fill zeros: indexing rows of an identity matrix would need classes^2 entries.
    rows = np.zeros(indices.size * classes, dtype)
    rows[np.arange(0, rows.size, classes) + indices.reshape(-1)] = 1
    return rows.reshape(*indices.shape, classes)
