"""The text that a model is trained on: the built-in one, the notebook's corpus, or a file."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError, did_you_mean, shorten
from harness.files.user_file import MAX_TEXT, FileFault, check_regular, displayed
from harness.text.reading import Text, builtin_text, lay_out, read_text, text_pieces
from harness.text.vocabulary import Vocabulary

NAMES = ("builtin", "nietzsche")
VARIABLE = "HARNESS_CORPUS"
URL = "https://s3.amazonaws.com/text-datasets/nietzsche.txt"
LENGTH = 600_893
SHA256 = "23cf69874ab69d3d256099ab530ea4be24d47d9675b673bcc67cbcd6298ec647"
CACHE = "backend-comparison-harness"
SECONDS = 30


@dataclass(frozen=True)
class Corpus:
    """A text, and where it came from."""

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

    def told(self) -> dict[str, str]:
        """Return the way to the indices of the text for another process."""
        return self.text.indices.told()

    def summary(self) -> str:
        """What is known of it, in a few words."""
        return f"{len(self.text):,} characters, {len(self.vocabulary)} distinct with the padding"


def corpus(name: str = "builtin", encoding: str = "utf-8") -> Corpus:
    """Return the text of a name, or of the file at a path (``./builtin`` is a file of that name).

    ``builtin`` needs no network, and depends on the version of Python. ``nietzsche``, the
    notebook's, is the file that the environment variable HARNESS_CORPUS names, or else is
    downloaded once and kept in the user's cache folder; either way its checksum is compared.
    ``encoding`` is that of a file that the user names.

    Raises:
        UsageError: there is no such text, it cannot be read or is not in that encoding, or it is
            not the corpus that it should be.
    """
    if name == "nietzsche" and (path := os.environ.get(VARIABLE)):
        return _local(path, encoding)
    if name in NAMES and encoding.lower() not in ("utf-8", "utf8"):
        raise UsageError(
            f"the text {name!r} is not a file of yours, so it cannot be in {encoding!r}; "
            "leave the encoding out"
        )
    if name == "builtin":
        source = f"pydoc_data.topics of Python {platform.python_version()}"
        return _known(name, builtin_text(), source)
    if name == "nietzsche":
        return _known(name, download(URL, SHA256), URL)
    try:
        # As it can be printed and kept, whatever bytes the file's name has.
        shown = displayed(name)
        return _file(shown, name, encoding)
    except UsageError as error:
        if os.path.exists(name):
            raise
        hint = f"{' and '.join(NAMES)} are texts with a name{did_you_mean(name, NAMES)}"
        raise UsageError(f"{error} ({hint})") from None


def download(url: str, sha256: str, folder: Path | None = None) -> str:
    """Return the text at a URL, from ``folder`` (the user's cache) where it has been kept there.

    Line ends are LF. ``sha256`` is that of the text as it is kept: with LF, in UTF-8. A file that
    was changed since is downloaded again; one that is wrong is not kept.

    Raises:
        UsageError: it cannot be had, or is another text.
    """
    # Here, as it takes a while, and most texts are not downloads.
    import pooch
    from requests.exceptions import HTTPError, RequestException

    # Its log goes to stderr.
    pooch.get_logger().setLevel("INFO" if sys.stderr.isatty() else "WARNING")
    folder = folder or pooch.os_cache(CACHE)
    try:
        if os.path.lexists(folder / "nietzsche.txt"):  # it may be anything by now
            check_regular(folder / "nietzsche.txt", MAX_TEXT, "a text")
        kept = pooch.retrieve(
            url, f"sha256:{sha256}", "nietzsche.txt", folder, downloader=_with_unix_newlines
        )
        return read_text(kept)
    except HTTPError as error:
        reason = f"the server answered {str(error).partition(' for url')[0]}"
    except RequestException as error:
        # The cause comes last, after all that was tried.
        cause = str(error).rpartition("Caused by ")[2]
        reason = f"{type(error).__name__}, {shorten(cause, 200)}"
    except FileFault as fault:
        reason = f"what is kept of it cannot be used: {fault}; remove that"
    except ValueError:
        reason = f"what came is another text, or a part of it: its sha256 is not {sha256}"
    except OSError as error:
        reason = f"the cache {str(folder)!r} cannot be used: {error.strerror or error}"
    raise UsageError(
        f"cannot get the text 'nietzsche' from {url}: {reason}. Set {VARIABLE} to the path of "
        "a copy that you have, or train on another text: a file of yours, or the built-in one"
    )


def _with_unix_newlines(url: str, path: str, _: object) -> None:
    """Download to a file; pooch compares its checksum afterwards, and keeps or removes it."""
    from pooch import HTTPDownloader

    HTTPDownloader(timeout=SECONDS)(url, path, None)
    file = Path(path)
    file.write_bytes(file.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n"))


def _local(path: str, encoding: str) -> Corpus:
    """Return the copy of the notebook's corpus that the environment variable names."""
    try:
        found = _file("nietzsche", path, encoding)
    except UsageError as error:
        raise UsageError(f"{VARIABLE} is set: {error}; correct it, or unset it") from None
    if found.sha256 != SHA256:
        raise UsageError(
            f"{VARIABLE} names {path!r}, which is not the notebook's corpus: "
            f"{len(found.text):,} characters with sha256 {found.sha256}, expected {LENGTH:,} with "
            f"{SHA256}; name another copy, or unset it for a download, or name this file itself "
            "as the text"
        )
    return found


def _known(name: str, text: str, source: str) -> Corpus:
    return Corpus(name, lay_out(lambda: [text]), source)


def _file(name: str, path: str, encoding: str) -> Corpus:
    return Corpus(name, lay_out(lambda: text_pieces(path, encoding)), displayed(path))
