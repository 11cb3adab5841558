"""From a text to the arrays of a spec: vocabulary, windows, one-hot rows and batches."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from encodings.aliases import aliases
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from harness.errors import UsageError, did_you_mean
from harness.files import MAX_TEXT, FileFault, displayed, read_bytes
from harness.initializers import generator

IndexArray = npt.NDArray[np.int64]
Order = Literal["shuffled", "sequential"]

PADDING = "\0"


def builtin_text() -> str:
    """Return an English text of over 300,000 characters that needs no network.

    It is the language reference that Python ships for `help()`: the topics sorted by name, a
    blank line between two. It is the same on every machine for one version of Python only.

    Raises:
        UsageError: this Python was packaged without the module.
    """
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise UsageError(
            "this Python was packaged without pydoc_data, the source of the built-in text; "
            "give the path of a UTF-8 text instead"
        ) from None
    return _unix_newlines("\n\n".join(topics[name] for name in sorted(topics)))


def read_text(path: str | Path, encoding: str = "utf-8") -> str:
    """Return the text of a file in a named encoding, with every line end turned into LF.

    Raises:
        UsageError: the encoding is unknown, or the file cannot be read or is not in it.
    """
    _check_encoding(encoding)
    # Bytes, and decoded here: text mode would use the locale's encoding, and the number of
    # distinct characters, so every shape of the model, depends on it.
    try:
        data = read_bytes(path, MAX_TEXT, "a text")
    except FileFault as fault:
        raise UsageError(f"cannot read the text {displayed(path)!r}: {fault.reason}") from None
    try:
        return _unix_newlines(data.decode(encoding))
    except UnicodeError as error:
        reason = str(error)
        if isinstance(error, UnicodeDecodeError):
            # The codec's own bytes: utf-8-sig counts from after the byte-order mark.
            found = error.object[error.start]
            reason = f"byte 0x{found:02x} at offset {error.start} ({error.reason})"
        raise UsageError(
            f"the text {str(path)!r} is not {encoding.upper()}: {reason}; "
            "name the encoding that it is in, or convert it to UTF-8 first"
        ) from None


def _check_encoding(encoding: str) -> None:
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        # Those that end so, and rot_13, are not of characters to bytes.
        names = {n for pair in aliases.items() for n in pair if not pair[1].endswith("_codec")}
        known = [name.replace("_", "-") for name in names - {"rot13", "rot_13"}]
        raise UsageError(
            f"{encoding!r} is no encoding of text that Python knows"
            f"{did_you_mean(encoding, known)}; utf-8, latin-1, cp1252 and utf-16 are some"
        ) from None


def _unix_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


@dataclass(frozen=True)
class Vocabulary:
    """The characters of a text; a character's index is its place in `characters`.

    `characters` is the padding character first, then all others in ascending order. No text
    contains the padding character, so index 0 never occurs in data.

    Raises:
        UsageError: `characters` is not of that form.
    """

    characters: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.characters[:1] != (PADDING,):
            raise UsageError(f"a vocabulary starts with the padding character {PADDING!r}")
        for character in self.characters:
            if len(character) != 1:
                raise UsageError(f"a vocabulary holds single characters, not {character!r}")
        if self.characters != tuple(sorted(set(self.characters))):
            raise UsageError("the characters of a vocabulary must be distinct and ascending")

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """Return the vocabulary of a text.

        Raises:
            UsageError: the text is empty or contains the padding character.
        """
        if not text:
            raise UsageError("the text is empty: there are no characters to make a vocabulary of")
        if PADDING in text:
            raise UsageError(
                f"the text contains the padding character {PADDING!r} at position "
                f"{text.index(PADDING)}; remove it from the text"
            )
        return cls((PADDING, *sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> IndexArray:
        """Return the index of every character, shape `[len(text)]`.

        Raises:
            UsageError: a character is not in the vocabulary.
        """
        known = _code_points("".join(self.characters))
        wanted = _code_points(text)
        indices = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        unknown = np.flatnonzero(known[indices] != wanted)
        if unknown.size:
            position = int(unknown[0])
            raise UsageError(
                f"unknown character {text[position]!r} at position {position}; "
                f"known are {''.join(self.characters[1:])!r} and the padding {PADDING!r}"
            )
        return indices.astype(np.int64)

    def decode(self, indices: npt.ArrayLike) -> str:
        """Return the characters of `indices`, shape `[length]`.

        Raises:
            UsageError: an index has no character.
        """
        checked = _checked_indices(indices, len(self), "the vocabulary")
        return "".join(self.characters[index] for index in checked.ravel())

    def check_classes(self, classes: int) -> None:
        """Check that a model with `classes` classes can read this vocabulary.

        More classes than characters are fine: the others just never occur.

        Raises:
            UsageError: there are fewer classes than characters.
        """
        if classes < len(self):
            raise UsageError(
                f"{classes} classes are too few: the text has {len(self) - 1} distinct characters "
                f"and the padding, so at least {len(self)} are needed"
            )


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _checked_indices(indices: npt.ArrayLike, limit: int, of: str) -> IndexArray:
    array = np.asarray(indices)
    if array.size and array.dtype.kind not in "iu":
        raise UsageError(f"indices must be whole numbers, not {array.dtype}")
    wrong = np.argwhere((array < 0) | (array >= limit))
    if len(wrong):
        position = tuple(int(axis) for axis in wrong[0])
        raise UsageError(
            f"index {array[position]} at position {list(position)} is outside {of}: "
            f"0 to {limit - 1} are allowed"
        )
    return array.astype(np.int64)


def windows(
    indices: IndexArray, length: int, stride: int, offset: int = 0, drop_last: int = 0
) -> IndexArray:
    """Return the windows of `length` indices that start `stride` apart, shape `[rows, length]`.

    Row r is `indices[r * stride + offset:][:length]`. The number of rows depends on neither
    `offset` nor the values: offset 0 gives the inputs and offset 1 the targets that belong to
    them, each the character after its input. The last `drop_last` rows are left out.

    Raises:
        UsageError: no row is left, a row would pass the end of the text, or an argument is
            out of its range.
    """
    starts = _starts(len(indices), length, stride, offset, drop_last, width=length)
    return np.take(np.asarray(indices, dtype=np.int64), starts[:, None] + np.arange(length))


def column(
    indices: IndexArray, length: int, stride: int, offset: int = 0, drop_last: int = 0
) -> IndexArray:
    """Return one index for each row of `windows(indices, length, stride)`, shape `[rows]`.

    Row r is `indices[r * stride + offset]`: offset n is column n of the windows, and
    `offset=length` is the character after each window.

    Raises:
        UsageError: as `windows`.
    """
    starts = _starts(len(indices), length, stride, offset, drop_last, width=1)
    return np.take(np.asarray(indices, dtype=np.int64), starts)


def row_count(size: int, length: int, stride: int, drop_last: int) -> int:
    """Return how many windows a text of `size` characters has; below 1 if it is too short."""
    return len(range(0, size - 1 - length, stride)) - drop_last


def _starts(
    size: int, length: int, stride: int, offset: int, drop_last: int, width: int
) -> IndexArray:
    smallest = {"length": (length, 1), "stride": (stride, 1), "offset": (offset, 0)}
    smallest["drop_last"] = (drop_last, 0)
    for name, (value, least) in smallest.items():
        if value < least:
            raise UsageError(f"{name} must be at least {least}, not {value}")
    rows = row_count(size, length, stride, drop_last)
    if rows < 1:
        raise UsageError(
            f"the text is too short: {size} characters, and windows of {length} with stride "
            f"{stride} and the last {drop_last} left out need at least "
            f"{length + 2 + drop_last * stride}"
        )
    starts = np.arange(rows, dtype=np.int64) * stride + offset
    last = int(starts[-1]) + width - 1
    if last >= size:
        raise UsageError(
            f"offset {offset} is too large: the last row would end at character {last}, and the "
            f"text ends at {size - 1}; at most {offset - (last - size + 1)} is allowed"
        )
    return starts


def one_hot(
    indices: npt.ArrayLike, classes: int, dtype: npt.DTypeLike = np.float64
) -> npt.NDArray[Any]:
    """Return 1 at each index and 0 elsewhere: shape `[...]` becomes `[..., classes]`.

    Raises:
        UsageError: an index is negative, or not below `classes`.
    """
    checked = _checked_indices(indices, classes, f"the {classes} classes")
    rows = np.zeros((*checked.shape, classes), dtype=dtype)
    np.put_along_axis(rows, checked[..., None], 1, axis=-1)
    return rows


def batches(
    rows: int, size: int, order: Order, whole_only: bool, seed: int, epoch: int
) -> Iterator[IndexArray]:
    """Return the row numbers of each batch of one epoch, each of shape `[size]`.

    Without `whole_only` the last batch holds the rows that remain. A shuffled order depends on
    `seed` and `epoch` only. A model that carries its state from batch to batch needs
    `order="sequential"` and `whole_only=True`: row j of a batch then follows row j of the last.

    Raises:
        UsageError: there is no batch, or the order is unknown.
    """
    if order not in get_args(Order):
        raise UsageError(
            f"unknown order {order!r}; allowed are {', '.join(get_args(Order))}"
            f"{did_you_mean(order, get_args(Order))}"
        )
    if size < 1:
        raise UsageError(f"the batch size must be at least 1, not {size}")
    if rows < (size if whole_only else 1):
        kind = f"a whole batch of {size}" if whole_only else "a batch"
        raise UsageError(f"{rows} rows are too few for {kind}")
    if order == "shuffled":
        numbers = generator(seed, f"shuffle/{epoch}").permutation(rows)
    else:
        numbers = np.arange(rows)
    end = rows // size * size if whole_only else rows
    return (numbers[start : start + size] for start in range(0, end, size))
