"""Faults of one process: exits, hangs, memory growth, and writes to wrong places."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import os
import resource
import signal
import stat
import sys
import threading
import time
from typing import Any

import numpy as np

from harness.worker import frames

RESULT_BYTES = 200_000_000


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
    # PyDLL keeps the GIL for the whole call: no other Python thread and no signal handler runs.
    ctypes.PyDLL(None).sleep(3600)


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    loop()


def allocate() -> None:
    held = []
    while True:
        held.append(np.ones(4 << 20, np.uint8))


def impossible_array() -> None:
    np.ones(1 << 60, np.uint8)


def framework_out_of_memory(message: str) -> None:
    raise RuntimeError(message)


def raise_of_kind(kind: str, message: str, wrapped: bool = False) -> None:
    error = type(kind, (Exception,), {})(message)
    if wrapped:
        raise LookupError("in a step") from error
    raise error


def lose_modules(prefix: str, again: bool = False) -> str:
    """Remove imported modules, and answer as if nothing had happened."""
    for name in [n for n in sys.modules if n.startswith(prefix)]:
        del sys.modules[name]
    if again:
        importlib.import_module(prefix)
    return "answered"


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


def close_socket() -> None:
    os.closerange(3, 64)
    time.sleep(60)


def write_to_socket(message: Any, content: bytes) -> None:
    """Write a frame of `message`, or bytes that are not a frame, to the socket for answers."""
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
    """Let a second thread kill the process while the reply is being sent."""
    threading.Timer(0.02, kill_self).start()
    return np.zeros(RESULT_BYTES, np.uint8)


def stop_self() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def garbage() -> None:
    write_to_socket(None, b"warning: something odd in mid-call")


def close_all_files() -> None:
    """Close the standard streams and the log, like a daemon."""
    os.closerange(0, 3)


def print_gigabytes() -> None:
    print_bytes(2 << 30)


def exit_in_thread() -> None:
    threading.Thread(target=os._exit, args=(5,)).start()
    time.sleep(60)


def no_memory_to_fork() -> None:
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    segfault()


def print_for_ever() -> str:
    """Return, but keep printing in a thread."""
    block = b"x" * (1 << 20)

    def talk() -> None:
        while True:
            os.write(1, block)

    threading.Thread(target=talk).start()
    return "returned"


def hang_at_exit() -> str:
    atexit.register(time.sleep, 60)
    threading.Thread(target=time.sleep, args=(60,)).start()
    return "registered"
