"""Exchange of messages with a worker process, within a deadline and a memory limit.

A call waits both for the answer on the socket and for the end of the process. The end of the stream
alone would not show it: a forked grandchild may keep the stream open forever.
"""

from __future__ import annotations

import math
import time
from typing import Any, Literal

from harness.worker import frames
from harness.worker.process import Process

Status = Literal["ok", "error", "crashed", "timeout", "out-of-memory"]

TICK = 0.05
"""Seconds between two checks of a process's log and memory."""
_CLOSING = 0.3


class LostWorker(Exception):
    """Error: a worker process has ended, or must be ended because it exceeded a limit."""

    def __init__(self, status: Status, cause: str) -> None:
        super().__init__(status, cause)
        self.status = status
        self.cause = cause


def exchange(
    process: Process, request: frames.FrameWriter | None, timeout: float | None, limit: int | None
) -> Any:
    """Send ``request`` to the process, and return the next message from the process. If ``request``
    is None, only wait for a message.

    Raises:
        LostWorker: the process ended, sent no message within ``timeout`` seconds, or used more than
            ``limit`` bytes of memory.
    """
    # A process cannot send arrays that are larger than its memory limit.
    allowed = frames.MAX_FRAME if limit is None else min(limit, frames.MAX_FRAME)
    reader = frames.FrameReader(allowed)
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    next_watch = time.monotonic() + TICK
    while True:
        wait = max(0.0, min(next_watch, deadline) - time.monotonic())
        readable, writable, ended = process.wait(wait, request is not None)
        try:
            if request and writable and request.advance(process.connection):
                request = None
            if readable and reader.advance(process.connection):
                return reader.message
            # Accept a complete answer even if the process has ended since.
            if ended and _read_last_frame(process, reader):
                return reader.message
        except (frames.EndOfStream, frames.FrameError, OSError) as error:
            raise LostWorker("crashed", "" if process.has_ended(_CLOSING) else str(error)) from None
        now = time.monotonic()
        if now >= deadline:
            raise LostWorker("timeout", f"no answer in {timeout:.1f} s")
        if now >= next_watch:
            next_watch = now + TICK
            watch(process, limit)


def _read_last_frame(process: Process, reader: frames.FrameReader) -> bool:
    """Read the last message of a process that has ended. Return True if the message is complete,
    otherwise raise an error."""
    while process.wait(0.0)[0]:
        if reader.advance(process.connection):
            return True
    # There are no data, and the stream has not ended because a forked child holds it open.
    raise frames.EndOfStream("the process ended without an answer")


def watch(process: Process, limit: int | None) -> None:
    """Cut the log of a process if it has grown large, and check the memory of the process. The
    parent calls this repeatedly while the process runs.

    Raises:
        LostWorker: the process uses more than ``limit`` bytes of memory.
    """
    process.log.watch()
    if limit is not None and (memory := process.memory()) > limit:
        raise LostWorker(
            "out-of-memory",
            f"resident memory of {memory >> 20:,} MiB is over the limit of {limit >> 20:,} MiB",
        )
