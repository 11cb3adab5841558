"""Texts: the built-in one, or a file's in some encoding, read in pieces and laid out as indices."""

from __future__ import annotations

import codecs
import hashlib
import importlib
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from encodings.aliases import aliases
from itertools import chain
from pathlib import Path

from harness.errors import UsageError, did_you_mean
from harness.files.user_file import MAX_TEXT, FileFault, displayed, read_pieces
from harness.text.shared import Shared
from harness.text.vocabulary import Vocabulary

# Whose decoders need all of a text at once.
WHOLE = ("idna", "punycode")
# By encoding: the mark at a text's begin, what it says of the rest, and what is before the byte
# that counts as the first.
MARKS = {
    "utf-8-sig": ((codecs.BOM_UTF8, "utf-8", 0),),
    "utf-16": ((codecs.BOM_UTF16_LE, "utf-16-le", 2), (codecs.BOM_UTF16_BE, "utf-16-be", 2)),
    "utf-32": ((codecs.BOM_UTF32_LE, "utf-32-le", 4), (codecs.BOM_UTF32_BE, "utf-32-be", 4)),
}
LONGEST = 4
UNMARKED = {
    "utf-8-sig": "utf-8",
    **{name: f"{name}-{sys.byteorder[0]}e" for name in ("utf-16", "utf-32")},
}


@dataclass(frozen=True)
class Text:
    """A text with LF line ends, as the indices of its characters.

    ``sha256`` (hex) is that of the text as UTF-8, so it does not depend on the file's encoding
    and line ends.
    """

    vocabulary: Vocabulary
    indices: Shared = field(compare=False)
    sha256: str

    def __len__(self) -> int:
        return len(self.indices)

    def __str__(self) -> str:
        return self.vocabulary.decode(self.indices.array)


def lay_out(pieces: Callable[[], Iterable[str]]) -> Text:
    """Return the text that pieces are of; they are asked for twice, and never held all at once.

    Raises:
        UsageError: the text is empty, contains the padding character or half a surrogate pair, or
            has changed meanwhile.
    """
    first, second = hashlib.sha256(), hashlib.sha256()
    vocabulary = Vocabulary.of(_hashed(pieces(), first))
    indices = Shared(vocabulary.narrow(piece) for piece in _hashed(pieces(), second))
    if first.digest() != second.digest():
        raise UsageError("the text was changed while it was read; do so again")
    return Text(vocabulary, indices, first.hexdigest())


def _hashed(pieces: Iterable[str], digest: hashlib._Hash) -> Iterator[str]:
    count = 0
    for piece in pieces:
        try:
            digest.update(piece.encode())
        except UnicodeEncodeError as error:
            # Some encodings can hold it. Neither weights nor any output could.
            raise UsageError(
                f"the text has half a surrogate pair, U+{ord(piece[error.start]):04X}, at "
                f"character {count + error.start + 1}, which is not a character: remove it, or "
                "name the encoding that the text is really in"
            ) from None
        count += len(piece)
        yield piece


def builtin_text() -> str:
    """An English text of over 300,000 characters that needs no network.

    It is the language reference that Python ships for ``help()``: the topics sorted by name, a
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
    whole = "\n\n".join(topics[name] for name in sorted(topics))
    return "".join(_with_unix_newlines([whole]))


def read_text(path: str | Path, encoding: str = "utf-8") -> str:
    """Return the text of a file whole, as ``text_pieces`` gives it.

    Raises:
        UsageError: as there.
    """
    return "".join(text_pieces(path, encoding))


def text_pieces(path: str | Path, encoding: str = "utf-8") -> Iterator[str]:
    """Yield the pieces of a file's text in a named encoding, with every line end turned into LF.

    Raises:
        UsageError: the encoding is unknown, or the file cannot be read or is not in it.
    """
    _check_encoding(encoding)
    # Bytes, and decoded here: text mode would use the locale's encoding, and the number of
    # distinct characters, so every shape of the model, depends on it.
    try:
        yield from _with_unix_newlines(_decoded(read_pieces(path, MAX_TEXT, "a text"), encoding))
    except FileFault as fault:
        raise UsageError(f"cannot read the text {displayed(path)!r}: {fault.reason}") from None
    except UnicodeError as error:
        raise UsageError(
            f"the text {displayed(path)!r} is not {encoding.upper()}: {error}; "
            "name the encoding that it is in, or convert it to UTF-8 first"
        ) from None


def _decoded(pieces: Iterator[bytes], encoding: str) -> Iterator[str]:
    """What ``bytes.decode`` gives of all pieces together, and what it says of where they fail."""
    name, counted, pieces = _without_mark(pieces, codecs.lookup(encoding).name)
    decode = _decoder(name)
    if decode is None:
        pieces, decode = iter([b"".join(pieces)]), lambda piece, _: piece.decode(name)
    for piece in chain(pieces, [b""]):
        counted += len(piece)
        try:
            yield decode(piece, not piece)
        except UnicodeDecodeError as error:
            # Of the bytes that the decoder was at, the last is the last that was read.
            place = counted - len(error.object) + error.start
            found = error.object[error.start]
            raise UnicodeError(f"byte 0x{found:02x} at offset {place} ({error.reason})") from None


def _without_mark(pieces: Iterator[bytes], name: str) -> tuple[str, int, Iterator[bytes]]:
    """What the mark at the begin of a text says: the encoding of the rest, and how many bytes
    count before it."""
    if name not in MARKS:
        return name, 0, pieces
    first = b""
    while len(first) < LONGEST and (piece := next(pieces, b"")):
        first += piece
    for mark, marked, counted in MARKS[name]:
        if first.startswith(mark):
            return marked, counted, chain([first[len(mark) :]], pieces)
    return UNMARKED[name], 0, chain([first], pieces)


def _decoder(name: str) -> Callable[[bytes, bool], str] | None:
    """Decodes a piece, which may be the last; None where an encoding must have all at once."""
    make = codecs.lookup(name).incrementaldecoder
    return None if make is None or name in WHOLE else make().decode


def _with_unix_newlines(pieces: Iterable[str]) -> Iterator[str]:
    translate = io.IncrementalNewlineDecoder(None, translate=True)
    for piece in pieces:
        yield translate.decode(piece)
    yield translate.decode("", final=True)


def _check_encoding(encoding: str) -> None:
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        # Those that end so, and rot_13, are not of characters to bytes.
        names = {n for pair in aliases.items() for n in pair if not pair[1].endswith("_codec")}
        known = [name.replace("_", "-") for name in names - {"rot13", "rot_13", encoding}]
        raise UsageError(
            f"{encoding!r} is not an encoding of text that Python knows"
            f"{did_you_mean(encoding, known)}; utf-8, latin-1, cp1252 and utf-16 are some"
        ) from None
