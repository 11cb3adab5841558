"""The reader of messages between processes."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from harness.errors import HarnessError
from harness.worker import frames


def read_frame(data: bytes, folder: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        # More than a socket takes at once is not sent: the reader must notice the end.
        with contextlib.suppress(BlockingIOError):
            theirs.send(data)
        theirs.close()
        try:
            frames.receive(ours)
        except (frames.FrameError, frames.EndOfStream) as error:
            raise HarnessError(str(error)) from error
