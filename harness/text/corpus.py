"""Sources of training text: the built-in text, the text of the Lesson 6 notebook, or a user's
file."""

from __future__ import annotations

import codecs
import hashlib
import importlib
import io
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from encodings.aliases import aliases
from itertools import chain
from pathlib import Path

from harness.errors import UsageError, did_you_mean, shorten
from harness.files.system import cache_folder
from harness.files.user_file import MAX_TEXT, FileFault, check_regular, displayed, read_pieces
from harness.text.shared import Shared
from harness.text.vocabulary import Vocabulary

# Encodings whose decoders need the whole text at once.
WHOLE = ("idna", "punycode")
# The possible byte-order marks of each encoding: the mark, the encoding of the bytes after it, and
# the offset that error messages give to the first of these bytes.
MARKS = {
    "utf-8-sig": ((codecs.BOM_UTF8, "utf-8", 0),),
    "utf-16": ((codecs.BOM_UTF16_LE, "utf-16-le", 2), (codecs.BOM_UTF16_BE, "utf-16-be", 2)),
    "utf-32": ((codecs.BOM_UTF32_LE, "utf-32-le", 4), (codecs.BOM_UTF32_BE, "utf-32-be", 4)),
}
LONGEST_MARK = 4
ENCODING_WITHOUT_MARK = {
    "utf-8-sig": "utf-8",
    **{name: f"{name}-{sys.byteorder[0]}e" for name in ("utf-16", "utf-32")},
}


@dataclass(frozen=True)
class Text:
    """A text with LF line ends, stored as an array that has the vocabulary index of each character.

    ``sha256`` (hex) is the hash of the text in UTF-8. The encoding and the line ends of the source
    file do not change this hash.
    """

    vocabulary: Vocabulary
    indices: Shared = field(compare=False)
    sha256: str

    def __len__(self) -> int:
        return len(self.indices)

    def __str__(self) -> str:
        return self.vocabulary.decode(self.indices.array)


def store_text(pieces: Callable[[], Iterable[str]]) -> Text:
    """Return a :class:`Text` that holds a text, which is given in pieces. The function ``pieces``
    is called twice, so that the pieces need not stay in memory; both calls must yield the same
    pieces.

    Raises:
        UsageError: the text is empty, contains the padding character or half a surrogate pair, or
            changed between the two calls.
    """
    first, second = hashlib.sha256(), hashlib.sha256()
    vocabulary = Vocabulary.of(_hash_pieces(pieces(), first))
    indices = Shared(vocabulary.narrow(piece) for piece in _hash_pieces(pieces(), second))
    if first.digest() != second.digest():
        raise UsageError("the text changed while it was read; read it again")
    return Text(vocabulary, indices, first.hexdigest())


def _hash_pieces(pieces: Iterable[str], digest: hashlib._Hash) -> Iterator[str]:
    count = 0
    for piece in pieces:
        try:
            digest.update(piece.encode())
        except UnicodeEncodeError as error:
            # Some encodings can hold half a surrogate pair, but files of weights and output cannot.
            raise UsageError(
                f"the text has half a surrogate pair, U+{ord(piece[error.start]):04X}, at "
                f"character {count + error.start + 1}, which is not a character: remove it, or "
                "name the text's actual encoding"
            ) from None
        count += len(piece)
        yield piece


def builtin_text() -> str:
    """Return an English text of over 300,000 characters that is part of Python.

    It consists of the topics of ``help()``, sorted by name and separated by blank lines. It depends
    only on the version of Python.

    Raises:
        UsageError: this Python was packaged without the module ``pydoc_data``.
    """
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise UsageError(
            "this Python was packaged without pydoc_data, the source of the built-in text; "
            "give the path of a UTF-8 text instead"
        ) from None
    joined = "\n\n".join(topics[name] for name in sorted(topics))
    return "".join(_unix_newlines([joined]))


def read_text(path: str | Path, encoding: str = "utf-8") -> str:
    """Return the whole text of a file, decoded by :func:`text_pieces`.

    Raises:
        UsageError: the encoding is unknown, or the file cannot be read or decoded.
    """
    return "".join(text_pieces(path, encoding))


def text_pieces(path: str | Path, encoding: str = "utf-8") -> Iterator[str]:
    """Yield the text of a file in pieces, decoded from ``encoding``, with LF line ends.

    Raises:
        UsageError: the encoding is unknown, or the file cannot be read or decoded.
    """
    _check_encoding(encoding)
    # Decode bytes here: text mode would use the locale's encoding. The number of distinct
    # characters, and so every shape of the model, depends on the encoding.
    try:
        yield from _unix_newlines(_decode_pieces(read_pieces(path, MAX_TEXT, "a text"), encoding))
    except FileFault as fault:
        raise UsageError(f"cannot read the text {displayed(path)!r}: {fault.reason}") from None
    except UnicodeError as error:
        raise UsageError(
            f"the text {displayed(path)!r} is not {encoding.upper()}: {error}; "
            "name its encoding, or convert it to UTF-8 first"
        ) from None


def _decode_pieces(pieces: Iterator[bytes], encoding: str) -> Iterator[str]:
    """Yield the text of ``pieces``, which are successive bytes of a file. An error message names
    the position in the whole file, as the message of ``bytes.decode`` does."""
    name, offset, pieces = _drop_mark(pieces, codecs.lookup(encoding).name)
    decode = _make_decoder(name)
    if decode is None:
        pieces, decode = iter([b"".join(pieces)]), lambda piece, _: piece.decode(name)
    for piece in chain(pieces, [b""]):
        offset += len(piece)
        try:
            yield decode(piece, not piece)
        except UnicodeDecodeError as error:
            # The error's bytes (`error.object`) end with the last byte that was read.
            place = offset - len(error.object) + error.start
            byte = error.object[error.start]
            raise UnicodeError(f"byte 0x{byte:02x} at offset {place} ({error.reason})") from None


def _drop_mark(pieces: Iterator[bytes], name: str) -> tuple[str, int, Iterator[bytes]]:
    """Remove the byte-order mark if there is one. Return the encoding of the remaining bytes, the
    position in the file at which they begin, and the remaining pieces."""
    if name not in MARKS:
        return name, 0, pieces
    first = b""
    while len(first) < LONGEST_MARK and (piece := next(pieces, b"")):
        first += piece
    for mark, encoding, offset in MARKS[name]:
        if first.startswith(mark):
            return encoding, offset, chain([first[len(mark) :]], pieces)
    return ENCODING_WITHOUT_MARK[name], 0, chain([first], pieces)


def _make_decoder(name: str) -> Callable[[bytes, bool], str] | None:
    """Return a function that decodes bytes piece by piece; return None if the encoding can only
    decode a whole text. The function gets a piece and whether it is the last, and returns text."""
    make = codecs.lookup(name).incrementaldecoder
    return None if make is None or name in WHOLE else make().decode


def _unix_newlines(pieces: Iterable[str]) -> Iterator[str]:
    translate = io.IncrementalNewlineDecoder(None, translate=True)
    for piece in pieces:
        yield translate.decode(piece)
    yield translate.decode("", final=True)


def _check_encoding(encoding: str) -> None:
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        # Encodings that end in _codec, and rot_13, do not map characters to bytes.
        names = {n for pair in aliases.items() for n in pair if not pair[1].endswith("_codec")}
        encodings = [name.replace("_", "-") for name in names - {"rot13", "rot_13", encoding}]
        raise UsageError(
            f"{encoding!r} is not a text encoding of Python"
            f"{did_you_mean(encoding, encodings)}; examples are utf-8, latin-1, cp1252 and utf-16"
        ) from None


NAMES = ("builtin", "nietzsche")
VARIABLE = "HARNESS_CORPUS"
URL = "https://s3.amazonaws.com/text-datasets/nietzsche.txt"
LENGTH = 600_893
SHA256 = "23cf69874ab69d3d256099ab530ea4be24d47d9675b673bcc67cbcd6298ec647"
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Corpus:
    """A text for training, with its name and source."""

    name: str
    text: Text
    source: str

    unit = "characters"
    other = "another text"

    @property
    def sha256(self) -> str:
        """The checksum of the text."""
        return self.text.sha256

    @property
    def vocabulary(self) -> Vocabulary:
        """The characters of the text."""
        return self.text.vocabulary

    def describe_location(self) -> dict[str, str]:
        """Return the location of the text in shared memory, as character indices. Another process
        passes it to :func:`harness.text.shared.map_vector`."""
        return self.text.indices.describe_location()

    def summary(self) -> str:
        """Return a text for messages, with the number of characters of the text and of its
        vocabulary."""
        return f"{len(self.text):,} characters, {len(self.vocabulary)} distinct with the padding"


def corpus(name: str = "builtin", encoding: str = "utf-8") -> Corpus:
    """Return a training text by its name: ``builtin``, ``nietzsche``, or the path of a file.

    ``builtin`` needs no network and depends on the version of Python. ``nietzsche`` is the text of
    the Lesson 6 notebook: the file in the environment variable HARNESS_CORPUS, or a download that
    is kept in the user's cache folder. The checksum of this text must be right. ``encoding``
    applies to a user's file. For a file named ``builtin``, write ``./builtin``.

    Raises:
        UsageError: the text is unknown, cannot be read or decoded, or has a wrong checksum.
    """
    if name == "nietzsche" and (path := os.environ.get(VARIABLE)):
        return _read_local(path, encoding)
    if name in NAMES and encoding.lower() not in ("utf-8", "utf8"):
        raise UsageError(
            f"the text {name!r} is built in or downloaded, so it cannot be in {encoding!r}; "
            "leave the encoding out"
        )
    if name == "builtin":
        source = f"pydoc_data.topics of Python {platform.python_version()}"
        return _make_corpus(name, builtin_text(), source)
    if name == "nietzsche":
        return _make_corpus(name, download(URL, SHA256), URL)
    try:
        # Make the name printable, even if it contains bytes that are not text.
        shown_name = displayed(name)
        return _read_file(shown_name, name, encoding)
    except UsageError as error:
        if os.path.exists(name):
            raise
        hint = f"the named texts are {' and '.join(NAMES)}{did_you_mean(name, NAMES)}"
        raise UsageError(f"{error} ({hint})") from None


def download(url: str, sha256: str, folder: Path | None = None) -> str:
    """Return the text at a URL with LF line ends; download it unless ``folder`` already holds it.

    ``folder`` is by default the user's cache. ``sha256`` is the hash of the text in UTF-8 with LF
    line ends. If the hash of the cached file is wrong, the text is downloaded again. A download
    with a wrong hash is not kept.

    Raises:
        UsageError: the download failed, or its hash is wrong.
    """
    # Import here, because the import is slow and most texts are not downloads.
    import pooch
    from requests.exceptions import HTTPError, RequestException

    # pooch logs to stderr.
    pooch.get_logger().setLevel("INFO" if sys.stderr.isatty() else "WARNING")
    folder = folder or cache_folder()
    try:
        if os.path.lexists(folder / "nietzsche.txt"):  # a user may have replaced it
            check_regular(folder / "nietzsche.txt", MAX_TEXT, "a text")
        cached_file = pooch.retrieve(
            url, f"sha256:{sha256}", "nietzsche.txt", folder, downloader=_with_unix_newlines
        )
        return read_text(cached_file)
    except HTTPError as error:
        reason = f"the server answered {str(error).partition(' for url')[0]}"
    except RequestException as error:
        # The message lists the attempts first and the cause last.
        cause = str(error).rpartition("Caused by ")[2]
        reason = f"{type(error).__name__}, {shorten(cause, 200)}"
    except FileFault as fault:
        reason = f"the cached file cannot be used: {fault}; remove this file"
    except ValueError:
        reason = f"the downloaded text is different or incomplete: its sha256 is not {sha256}"
    except OSError as error:
        reason = f"the cache {str(folder)!r} cannot be used: {error.strerror or error}"
    raise UsageError(
        f"cannot get the text 'nietzsche' from {url}: {reason}. Set {VARIABLE} to the path of "
        "a copy, or train on a different text: a file of your own, or the built-in text"
    )


def _with_unix_newlines(url: str, path: str, _: object) -> None:
    """Download the text at ``url`` to the file ``path``, with LF line ends. pooch calls this
    function, and then checks the hash."""
    from pooch import HTTPDownloader

    HTTPDownloader(timeout=TIMEOUT_SECONDS)(url, path, None)
    file = Path(path)
    file.write_bytes(file.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n"))


def _read_local(path: str, encoding: str) -> Corpus:
    try:
        local = _read_file("nietzsche", path, encoding)
    except UsageError as error:
        raise UsageError(f"{VARIABLE} is set: {error}; correct it, or unset it") from None
    if local.sha256 != SHA256:
        raise UsageError(
            f"{VARIABLE} names {path!r}, which is not the notebook's corpus: "
            f"{len(local.text):,} characters with sha256 {local.sha256}, expected {LENGTH:,} with "
            f"{SHA256}; set it to a correct copy, or unset it to download the text, or name this "
            "file as the text"
        )
    return local


def _make_corpus(name: str, text: str, source: str) -> Corpus:
    return Corpus(name, store_text(lambda: [text]), source)


def _read_file(name: str, path: str, encoding: str) -> Corpus:
    return Corpus(name, store_text(lambda: text_pieces(path, encoding)), displayed(path))
