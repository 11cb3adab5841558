"""Texts that are read in pieces are what they would be whole, and so are their errors."""

from __future__ import annotations

import codecs
import encodings
import hashlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wording import Wording

from harness.errors import UsageError
from harness.files import user_file
from harness.text import corpus
from harness.text.corpus import read_text, store_text
from harness.text.vocabulary import PADDING, Vocabulary

SAMPLE = "née\r\nß\r\n\r\u043f\u0440\u0438 \u6f22\u5b57 \U0001f600 end\r"


def known_encodings() -> list[str]:
    found = set()
    for module in pkgutil.iter_modules(encodings.__path__):
        try:
            "".encode(module.name)
        except (LookupError, ValueError):
            continue
        found.add(codecs.lookup(module.name).name)
    return sorted(found)


ENCODINGS = known_encodings()


def whole(data: bytes, encoding: str) -> str:
    """What the text is, or where it fails, with all of it at hand."""
    try:
        return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        # These two count from within the text: from the last hyphen, the last dot.
        skipped = len(data) - len(error.object) if encoding in corpus.WHOLE else 0
        found = error.object[error.start]
        return f"byte 0x{found:02x} at offset {skipped + error.start} ({error.reason})"
    except UnicodeError as error:
        return str(error)


def in_pieces(path: Path, data: bytes, encoding: str, piece: int) -> str:
    """What the text is, or where it fails, read so many bytes at a time."""
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(user_file, "PIECE", piece)
        try:
            return read_text(path, encoding)
        except UsageError as error:
            before, reason = str(error).split(f"is not {encoding.upper()}: ")
            assert before == f"the text {str(path)!r} "
            return reason.removesuffix("; name its encoding, or convert it to UTF-8 first")


def test_all_kinds_of_encodings_are_tried() -> None:
    assert {"utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "gb18030"} <= set(ENCODINGS)
    assert {"iso2022_jp", "utf-7", "hz", "idna", "punycode", "unicode-escape"} <= set(ENCODINGS)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_text_in_pieces_is_the_text(encoding: str, tmp_path: Path) -> None:
    data = SAMPLE.encode(encoding, "ignore") if encoding != "idna" else b"xn--nxasmq6b.de\r\n"
    assert data
    for piece in (1, 2, 3, 7, 1 << 20):
        assert in_pieces(tmp_path / "text", data, encoding, piece) == whole(data, encoding)


@pytest.mark.filterwarnings("ignore:.*invalid (octal )?escape sequence")
@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.binary(max_size=40), st.integers(1, 9), st.sampled_from([b"", b"\xff\xfe", b"\xef\xbb\xbf"])
)
def test_bytes_that_are_no_text_fail_where_they_would(
    encoding: str, tmp_path: Path, data: bytes, piece: int, mark: bytes
) -> None:
    found = in_pieces(tmp_path / "text", mark + data, encoding, piece)
    assert found == whole(mark + data, encoding)


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters=PADDING)), min_size=1).filter(
        any
    )
)
def test_what_is_laid_out_is_the_text(pieces: list[str]) -> None:
    text, made = "".join(pieces), store_text(lambda: pieces)
    assert str(made) == text
    assert len(made) == len(text)
    assert made.vocabulary == Vocabulary.of(text)
    assert made.sha256 == hashlib.sha256(text.encode()).hexdigest()
    np.testing.assert_array_equal(made.indices.array, made.vocabulary.encode(text))


@pytest.mark.parametrize(("characters", "dtype"), [(255, "u1"), (256, "u2"), (70_000, "u4")])
def test_indices_take_the_bytes_that_they_need(characters: int, dtype: str) -> None:
    distinct = (*range(1, 0xD800), *range(0xE000, 80_000))[:characters]
    text = "".join(map(chr, distinct)).replace("\r", "\n")
    made = store_text(lambda: ["ab", text])
    assert made.indices.array.dtype == np.dtype(dtype)
    assert str(made) == f"ab{text}"


def test_the_padding_is_found_in_a_later_piece(wording: Wording) -> None:
    with wording.raises(UsageError, "'\\x00' ... 6"):
        store_text(lambda: ["ab", "", "cde", f"f{PADDING}{PADDING}", PADDING])


def test_no_text_is_refused(wording: Wording) -> None:
    with wording.raises(UsageError):
        store_text(lambda: iter(()))


@pytest.mark.parametrize("second", ["abd", "ab", "abcd", "acb", "ab\u2028"])
def test_a_text_that_changes_while_it_is_read_is_refused(second: str, wording: Wording) -> None:
    texts = iter(["abc", second])

    def pieces() -> Iterator[str]:
        yield next(texts)

    with wording.raises(UsageError):
        store_text(pieces)


def test_a_text_that_is_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    (tmp_path / "text").write_bytes(b"a" * 101)
    monkeypatch.setattr(corpus, "MAX_TEXT", 100)
    with wording.raises(UsageError, "101 ... 100"):
        read_text(tmp_path / "text")
