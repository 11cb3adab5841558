"""Messages survive the socket bit for bit, and a broken stream is told from an ended one."""

from __future__ import annotations

import enum
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wording import Wording

from harness.worker import frames

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def travel(message: Any) -> Any:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(10)
        sender = threading.Thread(target=frames.send, args=(ours, message))
        sender.start()
        received = frames.receive(theirs)
        sender.join()
    return received


BASE = np.arange(24, dtype=np.float64).reshape(2, 3, 4) / 7
ARRAYS = {
    "C order": BASE,
    "Fortran order": np.asfortranarray(BASE),
    "transposed": BASE.T,
    "every second": BASE[:, ::2, ::2],
    "reversed": BASE[::-1, :, ::-1],
    "reversed row": BASE[0, 0, ::-1],
    "broadcast": np.broadcast_to(np.float32([1.5, -0.0, np.nan]), (4, 3)),
    "0-d": np.array(3.25),
    "empty": np.zeros((3, 0, 2), np.int16),
    "big-endian": BASE.astype(">f8"),
    "big-endian strided": BASE.astype(">i4")[:, :, ::3],
    "complex": BASE[0] * (1 - 2j),
    "half": BASE.astype(np.float16),
    "bool": BASE > 1,
    "text": np.array(["a", "äöü"]),
    "time": np.array(["2026-01-02"], dtype="M8[D]"),
    "NaN payload": np.array([0x7FF8_0000_0000_0123, 0xFFF0_0000_0000_0001], np.uint64).view("f8"),
    "read-only": np.frombuffer(b"12345678", np.int32),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_array_keeps_bits_dtype_and_shape(name: str) -> None:
    array = ARRAYS[name]
    before = array.tobytes()
    received = travel({"before": 1, "array": array, "again": [array, "after"]})
    for copy in (received["array"], received["again"][0]):
        assert copy.dtype.str == array.dtype.str
        assert copy.shape == array.shape
        assert copy.tobytes() == before
        assert copy.flags.writeable
        assert copy.flags.c_contiguous
    assert received["again"][1] == "after"
    assert array.tobytes() == before


SCALARS = [
    np.float64(0.1),
    np.float32("nan"),
    np.int8(-3),
    np.bool_(True),
    np.complex64(1 + 2j),
    np.array([7], ">u2")[0],
    np.datetime64("2026-01-02"),
]


@pytest.mark.parametrize("scalar", SCALARS, ids=repr)
def test_numpy_scalar_keeps_its_type(scalar: np.generic) -> None:
    received = travel([scalar])[0]
    assert type(received) is type(scalar)
    assert received.tobytes() == scalar.tobytes()


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


def test_subclasses_arrive_as_the_built_in_type() -> None:
    received = travel({"c": Colour.RED, "l": Level.HIGH, "t": (1, (2,)), "s": np.str_("x")})
    assert received == {"c": "red", "l": 3, "t": [1, [2]], "s": "x"}
    assert [type(value) for value in received.values()] == [str, int, list, str]


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(-9, 9), inner),
)


@given(plain)
def test_plain_values_survive(value: Any) -> None:
    assert travel(value) == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "builtins.object"),
        ({"a": [lambda: 0]}, "builtins.function"),
        (np.array([object()], dtype=object), "dtype object"),
        (np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]), "own plain dtypes"),
        (np.ma.masked_array([1, 2], [True, False]), "MaskedArray"),
        (2**64, "cannot be encoded"),
        ("\udcff", "cannot be encoded"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_refused_value_sends_nothing(pair: Pair, value: Any, words: str) -> None:
    ours, theirs = pair
    with pytest.raises(frames.Unencodable, match=words):
        frames.send(ours, {"good": np.ones(3), "bad": value})
    frames.send(ours, "next")
    assert frames.receive(theirs) == "next"


def test_endless_nesting_is_refused() -> None:
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(frames.Unencodable):
        frames.encode(nested)


def test_end_of_stream_is_told_from_a_truncated_frame() -> None:
    whole = b"".join(frames.encode({"array": np.arange(100), "text": "abc"}))
    for cut in (0, 1, 15, 16, 20, len(whole) - 1):
        ours, theirs = socket.socketpair()
        with theirs:
            with ours:
                ours.sendall(whole + whole[:cut])
            assert frames.receive(theirs)["text"] == "abc"
            expected = frames.FrameError if cut else frames.EndOfStream
            with pytest.raises(expected, match="middle" if cut else "closed"):
                frames.receive(theirs)


def test_too_large_frame_is_refused_at_both_ends(pair: Pair, wording: Wording) -> None:
    ours, theirs = pair
    with wording.raises(frames.Unencodable, "1,000"):
        frames.encode(np.zeros(1000), limit=1000)
    frames.send(ours, np.zeros(1000))
    with pytest.raises(frames.FrameError, match="1,000 are allowed"):
        frames.receive(theirs, limit=1000)


def test_half_a_surrogate_pair_is_sent_as_its_escape_where_that_is_asked_for(pair: Pair) -> None:
    ours, theirs = pair
    with pytest.raises(frames.Unencodable, match="surrogates not allowed"):
        frames.send(ours, {"\ud800": "a\udfff"})
    frames.send(ours, {"\ud800": "a\udfff"}, escape=True)
    assert frames.receive(theirs) == {"\\ud800": "a\\udfff"}


def test_reader_and_writer_take_what_a_non_blocking_socket_gives(pair: Pair) -> None:
    ours, theirs = pair
    ours.setblocking(False)
    theirs.setblocking(False)
    array = np.arange(500_000)
    writer, reader = frames.FrameWriter({"array": array}), frames.FrameReader()
    assert not reader.advance(theirs)
    rounds, written, read = 0, False, False
    while not read:
        written = written or writer.advance(ours)
        read = reader.advance(theirs)
        rounds += 1
    assert written
    assert rounds > 3
    assert np.array_equal(reader.message["array"], array)
