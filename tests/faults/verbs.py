"""A worker handler whose verbs are faults: each does to its process what a backend may do."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from harness import frames

RESULT_BYTES = 200_000_000


def handler(name: str) -> Callable[[str, dict[str, Any]], Any]:
    """Return what answers the calls of a worker called `name`."""
    return lambda verb, payload: globals()[verb](**payload)


def echo(value: Any = None) -> Any:
    return value


def identity() -> dict[str, Any]:
    return {"pid": os.getpid(), "environment": dict(os.environ)}


def pause(seconds: float) -> str:
    time.sleep(seconds)
    return "rested"


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def leave(code: int) -> None:
    os._exit(code)


def exit_politely() -> None:
    sys.exit(7)


def loop() -> None:
    while True:
        pass


def hold_gil() -> None:
    # PyDLL keeps the GIL for the whole call: no other Python thread, no signal handler runs.
    ctypes.PyDLL(None).sleep(3600)


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    loop()


def allocate() -> None:
    held = []
    while True:
        held.append(np.ones(4 << 20, np.uint8))


def allocate_in_child() -> None:
    if os.fork() == 0:
        allocate()
    time.sleep(60)


def impossible_array() -> None:
    np.ones(1 << 60, np.uint8)


def framework_out_of_memory(message: str) -> None:
    raise RuntimeError(message)


def raise_of_kind(kind: str, message: str, wrapped: bool = False) -> None:
    error = type(kind, (Exception,), {})(message)
    if wrapped:
        raise LookupError("in a step") from error
    raise error


class _Unpicklable(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")

    def __reduce__(self) -> Any:
        raise TypeError("cannot be pickled")


def raise_unpicklable() -> None:
    raise _Unpicklable("odd", "\udcff trouble")


class _Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def raise_speechless() -> None:
    raise _Speechless


def unencodable_result() -> Any:
    return {"model": object()}


def die_leaving_child() -> None:
    if os.fork() == 0:
        time.sleep(60)
    kill_self()


def return_from_fork(value: str) -> str:
    """Let a forked child come back from this call as its parent does."""
    return value if os.fork() else "the child"


def close_socket() -> None:
    os.closerange(3, 64)
    time.sleep(60)


def write_to_socket(message: Any, content: bytes) -> None:
    """Write a frame of `message`, or bytes that are no frame, where only answers should go."""
    for number in range(3, 64):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                os.write(number, content or b"".join(frames.encode(message)))
                time.sleep(60)


def print_from_c(text: str) -> None:
    ctypes.CDLL(None).puts(text.encode())


def print_bytes(count: int) -> str:
    block = b"x" * (1 << 20)
    left = count
    while left:
        left -= os.write(1, block[:left])
    os.write(1, b"the end")
    return "printed"


def big_result() -> Any:
    return np.arange(RESULT_BYTES // 8, dtype=np.int64)


def total(array: Any) -> int:
    return int(array.sum())


def die_in_big_reply() -> Any:
    """Be killed by a second thread while the reply is on its way."""
    threading.Timer(0.02, kill_self).start()
    return np.zeros(RESULT_BYTES, np.uint8)
