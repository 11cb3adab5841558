"""End of an interrupted command: it prints one line on standard error, exits with code 130, and
leaves no processes and no incomplete files.

The signals are Ctrl-C (SIGINT), SIGTERM and SIGHUP, unless they were ignored at the start, as in a
shell's background job. During start-up a signal ends the process at once, because an exception
would disturb the running imports. Within :func:`run_stoppable`, a signal raises
``KeyboardInterrupt``, so that workers end and files are complete.

The module imports almost nothing, so that the time before :func:`arm` is short.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False  # the same name as in typing, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import NoReturn

INTERRUPTED = 130
# Windows has neither SIGHUP nor SIGALRM.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
ALARM = hasattr(signal, "SIGALRM")
LINE = "interrupted"
# Seconds after a signal in which a second signal must not interrupt the cleanup.
ENDING = 2.0
# Seconds until an interrupt that was lost in a destructor or callback is raised again.
AGAIN = 0.01
# The maximum seconds of the cleanup before the process is ended.
LONGEST = 10.0
# The maximum seconds for printing the line: a paused terminal or a full pipe never accepts it.
PRINTING = 1.0

# Functions to call before the process exits; each must be safe in a signal handler.
before_leaving: list[Callable[[], None]] = []
_armed: list[signal.Signals] = []
_last_raise = -ENDING
_interrupted = False
# ``_printing`` is set when the printing of the line starts, ``_printed`` when it is printed.
_printing = False
_printed = False


def arm() -> None:
    """Install signal handlers that print a line and end the process at once; ``main`` calls this
    function first."""
    _armed[:] = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    _listen(_end)
    # Without this hook, exceptions in destructors and import callbacks are lost.
    sys.unraisablehook = _unraisable
    if ALARM:
        signal.signal(signal.SIGALRM, _raise)


def disarm() -> None:
    """Ignore signals from now on. It is called when the work is done and the exit code is
    decided."""
    for number in _armed:
        signal.signal(number, signal.SIG_IGN)


def run_stoppable(run: Callable[[], int], final_note: Callable[[], str] = str) -> int:
    """Return the result of ``run()``. If a signal interrupts it, clean up and return the exit code
    130.

    The printed line ends with the notes of the ``KeyboardInterrupt``. If there are no notes, the
    line ends with the text that ``final_note()`` returns.
    """
    global _printing, _printed
    from harness.output.printing import tell

    try:
        _listen(_raise)
        _watch()
        code = run()
        _listen(_end)
        return code
    except (KeyboardInterrupt, Exception) as interrupt:
        # Compiled code, such as pydantic's, may convert the interrupt to its own exception.
        if not (_interrupted or isinstance(interrupt, KeyboardInterrupt)):
            raise
        disarm()
        note = " ".join(getattr(interrupt, "__notes__", ())) or final_note()
        _printing = True
        tell(f"{LINE}; {note}" if note else LINE, error=True)
        _printed = True
        return INTERRUPTED


def leave() -> NoReturn:
    """End the process and its workers now, even if other threads still run."""
    for end in before_leaving:
        end()
    os._exit(INTERRUPTED)


def _watch() -> None:
    """Start a thread that ends the process after a signal, even if the main thread is running C
    code.

    Python handles signals only between two instructions, and a single large matmul can take
    minutes.
    """
    import threading

    if not (_armed and ALARM) or signal.set_wakeup_fd(-1) != -1:
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reading,), name="interrupts", daemon=True).start()


def _wait(reading: int) -> None:
    import threading

    while os.read(reading, 1)[0] not in _armed:
        continue
    begun = time.monotonic()
    time.sleep(PRINTING)
    while not (_printed or _unread()) and time.monotonic() - begun < (
        LONGEST if _interrupted else ENDING
    ):
        time.sleep(0.05)
    if _printed:
        time.sleep(PRINTING)
    elif not _printing:
        line = threading.Thread(target=os.write, args=(2, f"{LINE}\n".encode()), daemon=True)
        line.start()
        line.join(PRINTING)
    leave()


def _unread() -> bool:
    """Return whether standard error accepts no output, e.g. because a pipe is full and nobody reads
    it. If so, the cleanup must not print its line, because it might wait forever."""
    import select

    if not ALARM:
        return False  # Windows does not tell
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    return not poll.poll(0)


def _listen(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in _armed:
        signal.signal(number, handler)


def _end(*_: object) -> None:
    # The write may block forever. Then only a signal handler can end the process.
    if ALARM:
        signal.signal(signal.SIGALRM, lambda *_: os._exit(INTERRUPTED))
        signal.setitimer(signal.ITIMER_REAL, PRINTING)
    try:
        os.write(2, f"{LINE}\n".encode())
    finally:
        os._exit(INTERRUPTED)


def _raise(*_: object) -> None:
    global _interrupted, _last_raise
    _interrupted = True
    now = time.monotonic()
    if now - _last_raise >= ENDING:
        _last_raise = now
        raise KeyboardInterrupt


def _unraisable(lost: sys.UnraisableHookArgs) -> None:
    global _last_raise
    if issubclass(lost.exc_type, KeyboardInterrupt):
        _last_raise = -ENDING
        if ALARM:
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        sys.__unraisablehook__(lost)
