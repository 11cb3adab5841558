"""A worker handler whose verbs are faults: each does to its process what a backend may do."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import resource
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.worker import frames

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


def litter() -> str:
    """Leave behind a process of each kind that is hard to be rid of; all are there on return."""
    ready, said = os.pipe()
    for start in (
        lambda: None,
        os.setsid,
        lambda: os.setpgid(0, 0),
        _become_daemon,
        _ignore_all_signals,
        _become_deaf_daemon,
        _become_another_program,
    ):
        if os.fork() == 0:
            os.set_inheritable(said, True)
            start()
            os.write(said, b".")
            _idle()
    stopped = os.fork()
    if stopped == 0:
        os.setsid()
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(stopped, os.WUNTRACED)
    count = 0
    while count < 7:
        count += len(os.read(ready, 7))
    return "littered"


def _idle() -> None:
    time.sleep(120)
    os._exit(0)


def _become_daemon() -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)


def _ignore_all_signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_IGN)


def _become_deaf_daemon() -> None:
    _ignore_all_signals()
    # Waits for its children no more than for anything else: they would never be zombies.
    _become_daemon()


def _become_another_program() -> None:
    """A daemon of another program, which keeps nothing of the environment but the mark."""
    _become_daemon()
    said = max(int(name) for name in os.listdir("/proc/self/fd") if _is_pipe(int(name)))
    program = f"import os, time; os.write({said}, b'.'); time.sleep(120)"
    os.execve(sys.executable, [sys.executable, "-c", program, os.environ["FAULTS_MARK"]], {})


def _is_pipe(number: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(number).st_mode)
    except OSError:
        return False


def multiply() -> str:
    """Fork again and again, each child in a session of its own and each parent gone at once."""
    if os.fork() == 0:
        for _ in range(50_000):
            os.setsid()
            if os.fork():
                os._exit(0)
        _idle()
    return "multiplied"


def spread() -> str:
    """Start 64 processes, all of which stay, in as many sessions."""
    if os.fork() == 0:
        for _ in range(6):
            if os.fork() == 0:
                os.setsid()
        _idle()
    time.sleep(0.3)
    return "spread"


def kill_guardian(number: int) -> None:
    os.kill(os.getppid(), number)
    time.sleep(60)


def stop_self() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def stop_guardian() -> None:
    os.kill(os.getppid(), signal.SIGSTOP)
    kill_self()


def interrupt_all() -> None:
    """Signal the whole group, as a careless clean-up does."""
    os.killpg(0, signal.SIGTERM)
    time.sleep(60)


def leave_group() -> None:
    """Go on in a child of another session, and end; the child answers."""
    if os.fork():
        os._exit(0)
    os.setsid()


def answer_in_child() -> None:
    """Let a forked child go on beside its parent."""
    os.fork()


def garbage() -> None:
    write_to_socket(None, b"warning: something odd in mid-call")


def close_all_files() -> None:
    """As a daemon does, with the log."""
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
    """Return, and go on printing from a thread."""
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


def allocate_in_daemon() -> None:
    if os.fork() == 0:
        _become_daemon()
        allocate()
    time.sleep(60)
