"""Frames that no worker of ours sends are refused in words, and take no memory."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wording import Wording

from harness.files.system import resident_memory
from harness.worker import frames


def announce(name: str, shape: list[int], array_bytes: int) -> bytes:
    body = msgpack.packb(msgpack.ExtType(1, msgpack.packb([name, shape])))
    return struct.pack(">QQ", len(body), array_bytes) + body


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Traceback (most recent call last)", ""),
        (struct.pack(">QQ", 3, 0) + b"\xc1\xc1\xc1", ""),
        (announce("<f8", [1 << 40], 8), ""),
        (announce("<f8", [-1, -1], 8), ""),
        (announce("<f8", [1], 16), ""),
        (announce("|O", [1], 8), "'|O'"),
        (announce("nonsense", [1], 8), "'nonsense'"),
        (struct.pack(">QQ", 3, 0) + b"\xd4\x09\x00", "9"),
    ],
)
def test_malformed_frame_is_refused(content: bytes, words: str, wording: Wording) -> None:
    with wording.raises(frames.FrameError, words):
        received(content)


def received(content: bytes, limit: int = frames.MAX_FRAME) -> Any:
    """What a frame is read as, from a stream that ends with it."""
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.setblocking(False)
            ours.send(content)
        return frames.receive(theirs, limit)


def framed(body: bytes, arrays: int = 0, content: bytes = b"") -> bytes:
    return struct.pack(">QQ", len(body), arrays) + body + content


def extension(code: int, value: Any) -> bytes:
    return framed(msgpack.packb(msgpack.ExtType(code, msgpack.packb(value))), 8)


# Names that numpy's own reader takes for a dtype, and some that nobody does.
DTYPES = [
    *("i4,(1000000,1000000)i4", "(9,9)f8", "f8,O", "V8", "|V8", "O", "|O8", "U0", "<U0", "S"),
    *("f16", "<f16", "float64", "double", "<f8 ", "=f8", "f8", "<M8", "<M8[25s]", "<c64"),
    *("<m8[9999999999999s]", "<U99999999", "<U65537", "", "a" * 70000, "\x00", "é", "object"),
]


@pytest.mark.parametrize("name", [*DTYPES, None, 7, 1.5, True, ["<f8"], {}, b"<f8"])
@pytest.mark.parametrize("code", [1, 2])
def test_dtype_that_is_not_on_the_list_is_refused(name: Any, code: int) -> None:
    with pytest.raises(frames.FrameError, match="announced, which cannot"):
        received(extension(code, [name, [1] if code == 1 else b"12345678"]))


@pytest.mark.parametrize(
    "shape",
    [
        *([1.0], [True], ["1"], [None], [[1]], [-1], [2**63], [2**63 - 1], [0, 2**63 - 1]),
        *([1] * 65, [0, 2**62, 2**62, 2**62], [2**32, 2**32], None, "1", 1, {}, {0: 1}, b"\x01"),
    ],
    ids=str,
)
def test_shape_that_is_none_is_refused(shape: Any) -> None:
    with pytest.raises(frames.FrameError):
        received(extension(1, ["<f8", shape]))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        ["<f8"],
        ["<f8", [1], 3],
        {},
        {"<f8": [1]},
        "<f8",
        7,
        ["<f8", b"1234"],
        ["<f8", "12345678"],
    ],
)
@pytest.mark.parametrize("code", [1, 2])
def test_extension_of_another_form_is_refused(value: Any, code: int) -> None:
    with pytest.raises(frames.FrameError):
        received(extension(code, value))


@pytest.mark.parametrize(
    "body",
    {
        "a list in a list in a list": b"\x91" * 100_000 + b"\xc0",
        "a dictionary in a dictionary": b"\x81\xc0" * 50_000 + b"\xc0",
        "an extension in an extension": msgpack.packb(
            msgpack.ExtType(1, msgpack.packb([msgpack.ExtType(1, b""), []]))
        ),
        "a list of billions": b"\xdd\xff\xff\xff\xff",
        "a dictionary of billions": b"\xdf\xff\xff\xff\xff",
        "lists of a million, each in the last": b"\xdd\x00\x0f\xff\xff" * 1000 + b"\xc0",
        "a text of gigabytes": b"\xdb\xff\xff\xff\xff",
        "bytes of gigabytes": b"\xc6\xff\xff\xff\xff",
        "an extension of gigabytes": b"\xc9\xff\xff\xff\xff\x01",
        "two messages": b"\xc0\xc0",
        "no message": b"",
        "a list as a key": b"\x81\x90\xc0",
        "text that is none": b"\xa1\xff",
    }.values(),
    ids=str,
)
def test_body_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(frames.FrameError):
        received(framed(body))


@pytest.mark.parametrize(
    ("size", "arrays", "body"),
    {
        "a message of 7 GiB": (7 << 30, 0, b""),
        "a message of 17 MiB": (17 << 20, 0, b""),
        "arrays of 7 GiB": (0, 7 << 30, announce("<f8", [7 << 27], 0)[16:]),
        "thousands of arrays of 2 MiB": (
            0,
            3000 << 21,
            msgpack.packb(
                [msgpack.ExtType(1, msgpack.packb(["|u1", [1 << 21]])) for _ in range(3000)]
            ),
        ),
    }.values(),
    ids=["message", "message just too large", "array", "many arrays"],
)
@pytest.mark.alone  # other threads of a process with many tests take memory, too
def test_what_is_announced_takes_no_memory(size: int, arrays: int, body: bytes) -> None:
    before = resident_memory()
    reader = frames.FrameReader()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        ours.sendall(struct.pack(">QQ", size or len(body), arrays) + body + b"x" * 1000)
        with contextlib.suppress(frames.FrameError, BlockingIOError):
            while theirs.recv(1, socket.MSG_PEEK):
                assert not reader.advance(theirs)
    assert resident_memory() - before < 64 << 20


def test_message_that_is_too_large_is_refused_at_both_ends(wording: Wording) -> None:
    with wording.raises(frames.Unencodable):
        frames.encode("x" * (frames.MAX_MESSAGE + 1))
    with wording.raises(frames.FrameError, "16,777,217"):
        received(struct.pack(">QQ", frames.MAX_MESSAGE + 1, 0))


GOOD = [
    b"".join(frames.encode(message))
    for message in (
        None,
        {"id": 3, "status": "ok", "value": {"loss": np.array(1.5)}, "seconds": 0.1},
        {"id": 1, "value": [np.zeros((2, 0, 3)), np.float32(1), ["a", b"b", {1: None}]]},
        [np.arange(6, dtype=">i2").reshape(2, 3), np.array(["a", "bc"]), {"x": {"y": [1.0] * 20}}],
    )
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good frame with some bytes changed, taken out, doubled or cut off; sizes are kept true
    most of the time, so that what is behind them is read at all."""
    content = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(("set", "insert", "delete", "double", "cut")))
        if kind == "set" and content:
            content[at] = draw(st.integers(0, 255))
        elif kind == "insert":
            content[at:at] = draw(st.binary(max_size=8))
        elif kind == "delete":
            del content[at : at + draw(st.integers(1, 8))]
        elif kind == "double":
            content[at:at] = content[at : at + draw(st.integers(1, 40))]
        else:
            del content[at:]
    if len(content) > 16 and draw(st.integers(0, 3)):
        arrays = draw(st.sampled_from((0, 8, 12, 24)))
        content[:16] = struct.pack(">QQ", max(len(content) - 16 - arrays, 0), arrays)
    return bytes(content)


@settings(max_examples=2000, deadline=None)
@given(mutated() | st.binary(max_size=64).map(lambda body: framed(body)))
def test_mutated_frames_are_read_or_refused(content: bytes) -> None:
    try:
        received(content, limit=1 << 24)
    except (frames.FrameError, frames.EndOfStream):
        return
