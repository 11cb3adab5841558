"""How a command ends when it is told to: one line on standard error, exit code 130, nothing left.

Told to means Ctrl-C (SIGINT), SIGTERM or SIGHUP; those that were ignored when the process started,
as a shell's background job ignores Ctrl-C, stay ignored. At first a signal ends the process on the
spot: there is nothing to clean up yet, and an exception would come out of whatever is just being
imported. Within :func:`stoppable` it is a ``KeyboardInterrupt``, so that workers are ended and
files are whole.

Imports next to nothing, so that the time before :func:`arm` is short.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import NoReturn

INTERRUPTED = 130
# Windows has neither the last signal nor an alarm.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
ALARM = hasattr(signal, "SIGALRM")
LINE = "interrupted"
# Seconds in which a second signal must not cut the ending short that the first one began.
ENDING = 2.0
# Seconds until an interrupt that nobody could see is raised again.
AGAIN = 0.01
# Seconds that the ending may take, until the process is ended as it is.
LONGEST = 10.0
# Seconds that the line may take: a terminal that is paused, or a full pipe, never takes it.
TELLING = 1.0

# What a process does as it leaves, whatever its threads are doing; safe in a signal handler.
before_leaving: list[Callable[[], None]] = []
_armed: list[signal.Signals] = []
_last = -ENDING
_heard = False
# Whether the line is being printed, and whether it is.
_telling = False
_told = False


def arm() -> None:
    """From now on a signal ends the process at once, with a line; for ``main`` to call first."""
    _armed[:] = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    _listen(_end)
    # An exception from a destructor or from a callback of the import system goes nowhere.
    sys.unraisablehook = _unraisable
    if ALARM:
        signal.signal(signal.SIGALRM, _raise)


def disarm() -> None:
    """From now on signals are ignored: the work is done, and its exit code is decided."""
    for number in _armed:
        signal.signal(number, signal.SIG_IGN)


def stoppable(run: Callable[[], int], told: Callable[[], str] = str) -> int:
    """The value of ``run``, or 130 where it was interrupted; then its own cleaning up is done.

    After a semicolon the line says what the interrupt's notes say, or else what ``told`` gives.
    """
    global _telling, _told
    from harness.output.printing import tell

    try:
        _listen(_raise)
        _watch()
        code = run()
        _listen(_end)
        return code
    except (KeyboardInterrupt, Exception) as interrupt:
        # Compiled code (pydantic, as it builds a validator) makes an error of its own of it.
        if not (_heard or isinstance(interrupt, KeyboardInterrupt)):
            raise
        disarm()
        more = " ".join(getattr(interrupt, "__notes__", ())) or told()
        _telling = True
        tell(f"{LINE}; {more}" if more else LINE, error=True)
        _told = True
        return INTERRUPTED


def leave() -> NoReturn:
    """End the process and its workers now, whatever its other threads are doing."""
    for end in before_leaving:
        end()
    os._exit(INTERRUPTED)


def _watch() -> None:
    """Have a thread see to it that a signal ends the process, even while the main one is in C.

    Python's own handlers run between two instructions of the main thread, and one product of large
    matrices takes minutes.
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
    time.sleep(TELLING)
    while not (_told or _unread()) and time.monotonic() - begun < (LONGEST if _heard else ENDING):
        time.sleep(0.05)
    if _told:
        time.sleep(TELLING)
    elif not _telling:
        line = threading.Thread(target=os.write, args=(2, f"{LINE}\n".encode()), daemon=True)
        line.start()
        line.join(TELLING)
    leave()


def _unread() -> bool:
    """Return whether standard error takes nothing: what cleans up may wait for it in vain."""
    import select

    poll = select.poll()
    poll.register(2, select.POLLOUT)
    return not poll.poll(0)


def _listen(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in _armed:
        signal.signal(number, handler)


def _end(*_: object) -> None:
    # The write may wait for ever, and only another signal's handler runs meanwhile.
    if ALARM:
        signal.signal(signal.SIGALRM, lambda *_: os._exit(INTERRUPTED))
        signal.setitimer(signal.ITIMER_REAL, TELLING)
    try:
        os.write(2, f"{LINE}\n".encode())
    finally:
        os._exit(INTERRUPTED)


def _raise(*_: object) -> None:
    global _heard, _last
    _heard = True
    now = time.monotonic()
    if now - _last >= ENDING:
        _last = now
        raise KeyboardInterrupt


def _unraisable(lost: sys.UnraisableHookArgs) -> None:
    global _last
    if issubclass(lost.exc_type, KeyboardInterrupt):
        _last = -ENDING
        if ALARM:
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        sys.__unraisablehook__(lost)
