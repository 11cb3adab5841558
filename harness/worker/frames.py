"""Messages between the harness and a worker: msgpack frames with numpy arrays over a socket.

A frame has three parts: a header, the msgpack message, and the bytes of its arrays in order. The
header holds the sizes of the message and of the arrays, as 8-byte big-endian numbers. Inside the
message, an array is a msgpack extension of type 1 with its dtype and shape. C-contiguous arrays are
sent and received without a copy. A numpy scalar is an extension of type 2 with its dtype and bytes.

Values keep their bits, dtype (including byte order) and shape. Tuples arrive as lists, and
instances of subclasses of built-in types arrive as the built-in type.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Generator, Mapping
from functools import partial
from struct import Struct
from typing import Any

import msgpack
import numpy as np

from harness.arrays import Array, can_send, find_dtype
from harness.errors import shorten

MAX_FRAME = 8 << 30  # bytes, unless another limit is given

MAX_MESSAGE = 16 << 20
"""The most bytes of a message (names, programs, lists of numbers) without its arrays."""

_HEADER = Struct(">QQ")
_ARRAY, _SCALAR = 1, 2
_WRITE_SIZE = 1 << 20
# Limits of lists, dictionaries and numbers of axes, because msgpack allocates the announced length.
_LONGEST_LIST, _LARGEST_MAP, _MOST_AXES = 1 << 20, 1 << 17, 32
_PLAIN: dict[type, Callable[[Any], Any]] = {
    Mapping: dict,
    tuple: list,
    list: list,
    str: str.__str__,
    bytes: bytes,
}


class FrameError(Exception):
    """Error: a frame is truncated, oversized or malformed."""


class EndOfStream(EOFError):
    """Error: the other end closed the stream between two frames, i.e. after a complete message."""


class Unencodable(TypeError):
    """Error: a message cannot be encoded or is too large; no part of it was sent."""


def encode(message: Any, limit: int = MAX_FRAME, escape: bool = False) -> list[memoryview]:
    """Return the frame of ``message`` as a list of pieces. The arrays in the message must not
    change until the frame is sent.

    ``escape`` replaces lone surrogates, which UTF-8 cannot encode, by their escape sequences.

    Raises:
        Unencodable: a value has no encoding, or the frame is larger than ``limit`` bytes.
    """
    arrays: list[Array] = []
    errors = "backslashreplace" if escape else "strict"
    default = partial(_extension, arrays)
    # Strict, so that `default` gets numpy's float64, a subclass of float.
    try:
        body = msgpack.packb(message, default=default, strict_types=True, unicode_errors=errors)
    except Unencodable:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Unencodable(f"the message cannot be encoded: {error}") from error
    array_bytes = sum(array.nbytes for array in arrays)
    for size, most, whole in (
        (len(body) + array_bytes, limit, "frame"),
        (len(body), MAX_MESSAGE, "frame without its arrays"),
    ):
        if size > most:
            raise Unencodable(
                f"the message has {size:,} bytes; at most {most:,} are allowed in a {whole}"
            )
    head = memoryview(_HEADER.pack(len(body), array_bytes) + body)
    return [head, *(_bytes_of(array) for array in arrays if array.nbytes)]


def send(connection: socket.socket, message: Any, escape: bool = False) -> None:
    """Send ``message`` over a blocking socket. ``escape`` replaces characters that UTF-8 cannot
    encode.

    Raises:
        Unencodable: a value has no encoding, or the frame is too large; nothing was sent.
        OSError: the other end of the socket is closed.
    """
    for piece in encode(message, escape=escape):
        connection.sendall(piece)


def receive(connection: socket.socket, limit: int = MAX_FRAME) -> Any:
    """Return the next message from a blocking socket.

    Raises:
        EndOfStream: the other end closed the stream after a whole frame.
        FrameError: the stream ended inside a frame, or the frame is malformed or larger than
            ``limit``.
    """
    reader = FrameReader(limit)
    while not reader.advance(connection):
        pass
    return reader.message


class FrameWriter:
    """A writer that sends one message (a frame) over a non-blocking socket, in as many pieces as
    the socket needs."""

    def __init__(self, message: Any) -> None:
        """Encode ``message``. Raise Unencodable if a value in it has no encoding, or if it is too
        large."""
        self._pieces = encode(message)[::-1]

    def advance(self, connection: socket.socket) -> bool:
        """Write as many bytes as the socket accepts without waiting; return True if the whole frame
        has been written.

        Raises:
            OSError: the other end of the socket is closed.
        """
        if self._pieces:
            piece = self._pieces[-1]
            try:
                sent = connection.send(piece[:_WRITE_SIZE])
            except BlockingIOError:
                return False
            if sent == len(piece):
                self._pieces.pop()
            else:
                self._pieces[-1] = piece[sent:]
        return not self._pieces


class FrameReader:
    """A reader that receives one message (a frame), piece by piece. When the frame is complete,
    ``message`` is the decoded message."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.message: Any = None
        self._limit = limit
        self._parts = self._plan()
        self._rest = next(self._parts)
        self._started = False

    def advance(self, connection: socket.socket) -> bool:
        """Read the bytes that have arrived, and return whether the message is complete. If the
        socket is non-blocking, there may be no bytes.

        Raises:
            EndOfStream: the other end closed the stream before this frame began.
            FrameError: the stream ended inside this frame, or the frame is malformed.
        """
        try:
            count = connection.recv_into(self._rest)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            count = 0
        if not count:
            if self._started:
                raise FrameError("the stream ended in the middle of a frame")
            raise EndOfStream("the other end closed the stream")
        self._started = True
        self._rest = self._rest[count:]
        if not self._rest:
            try:
                self._rest = next(self._parts)
            except StopIteration as end:
                self.message = end.value
                return True
        return False

    def _plan(self) -> Generator[memoryview, None, Any]:
        """Yield one buffer after another, which the caller must fill with received bytes. When all
        are filled, return the decoded message."""
        header = bytearray(_HEADER.size)
        yield memoryview(header)
        size, array_bytes = _HEADER.unpack(header)
        # Check the sizes before allocating memory. If other code prints text into the socket, its
        # bytes look like a frame of exabytes.
        for what, announced, allowed in (
            ("frame", size + array_bytes, self._limit),
            ("message without arrays", size, MAX_MESSAGE),
        ):
            if announced > allowed:
                raise FrameError(
                    f"a {what} of {announced:,} bytes is announced, but only {allowed:,} "
                    "are allowed; "
                    "did other code write to the socket?"
                )
        body = bytearray(size)
        if size:
            yield memoryview(body)
        arrays = _Arrays(array_bytes)
        message = _decode(body, arrays)
        for array in arrays.received:
            if array.nbytes:
                yield _bytes_of(array)
        return message


class _Arrays:
    """The arrays of a message that is received. All arrays together may have at most ``budget``
    bytes, a number from the frame's header. So a wrong message cannot make the reader allocate more
    memory."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.received: list[Array] = []

    def extension(self, code: int, data: bytes) -> Any:
        if code not in (_ARRAY, _SCALAR):
            raise FrameError(f"extension type {code} is unknown; 1 and 2 are known")
        # The data has two entries: a dtype, and a shape or bytes.
        pair = msgpack.unpackb(data, max_array_len=_MOST_AXES, max_map_len=0, max_ext_len=0)
        if not isinstance(pair, list) or len(pair) != 2:
            raise FrameError("an array is announced without dtype and shape")
        dtype = _plain_dtype(pair[0])
        return self._scalar(dtype, pair[1]) if code == _SCALAR else self._array(dtype, pair[1])

    def _scalar(self, dtype: np.dtype[Any], content: Any) -> Any:
        if not isinstance(content, bytes) or len(content) != dtype.itemsize:
            raise FrameError(f"a number of dtype {dtype} does not have {dtype.itemsize} bytes")
        return np.frombuffer(content, dtype)[0]

    def _array(self, dtype: np.dtype[Any], shape: Any) -> Array:
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise FrameError(f"an array of the invalid shape {shorten(repr(shape))} is announced")
        self.budget -= math.prod(shape) * dtype.itemsize
        if self.budget < 0:
            raise FrameError("the arrays of a frame are larger than its header says")
        # This line takes no memory yet: Linux allocates memory when it is filled.
        array = np.empty(shape, dtype)
        self.received.append(array)
        return array


def _decode(body: bytearray, arrays: _Arrays) -> Any:
    try:
        message = msgpack.unpackb(
            body,
            ext_hook=arrays.extension,
            strict_map_key=False,
            max_array_len=_LONGEST_LIST,
            max_map_len=_LARGEST_MAP,
        )
    except FrameError:
        raise
    # Arbitrary bytes can raise many exceptions in msgpack and numpy, even MemoryError.
    except Exception as error:
        raise FrameError(f"a frame cannot be decoded: {type(error).__name__}: {error}") from error
    if arrays.budget:
        raise FrameError("the arrays of a frame are smaller than its header says")
    return message


def _extension(arrays: list[Array], value: Any) -> Any:
    """Convert ``value``, whose type msgpack does not know, to a type that it knows. Arrays are
    added to ``arrays``, to be sent after the message."""
    if type(value) is np.ndarray:
        # Not ascontiguousarray, which turns a 0-d array into shape [1].
        array = np.asarray(value, order="C")
        arrays.append(array)
        return msgpack.ExtType(_ARRAY, msgpack.packb([_dtype_name(array.dtype), array.shape]))
    for base, plain in _PLAIN.items():
        if isinstance(value, base):
            return plain(value)
    if isinstance(value, np.generic):
        name = _dtype_name(value.dtype)
        return msgpack.ExtType(_SCALAR, msgpack.packb([name, value.tobytes()]))
    for number in (int, float):
        if isinstance(value, number):
            return number(value)
    raise Unencodable(
        f"a value of type {type(value).__module__}.{type(value).__qualname__} cannot be sent; "
        "numbers, strings, bytes, lists, dicts and plain numpy arrays can"
    )


def _dtype_name(dtype: np.dtype[Any]) -> str:
    if not can_send(dtype):
        raise Unencodable(
            f"an array of dtype {dtype} cannot be sent: only numpy's own plain dtypes can; convert "
            "it, or view it as unsigned integers of the same width"
        )
    return dtype.str


def _plain_dtype(name: Any) -> np.dtype[Any]:
    dtype = find_dtype(name) if isinstance(name, str) else None
    if dtype is None:
        shown = shorten(repr(name))
        raise FrameError(f"an array of dtype {shown} is announced, which cannot be sent")
    return dtype


def _bytes_of(array: Array) -> memoryview:
    # View as bytes first: a memoryview cannot cast every format, such as another byte order.
    return array.reshape(-1).view(np.uint8).data
