"""Faults of several processes: children that stay alive, and signals to parent and group."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import time

from process_faults.harm import allocate, kill_self


def allocate_in_child() -> None:
    if os.fork() == 0:
        allocate()
    time.sleep(60)


def die_leaving_child() -> None:
    if os.fork() == 0:
        time.sleep(60)
    kill_self()


def return_from_fork(value: str) -> str:
    """Fork a child that also returns from this call."""
    return value if os.fork() else "the child"


def litter() -> str:
    """Leave behind a process of each kind that is hard to end; all are running on return."""
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
    # It ignores SIGCHLD too, so the system reaps its children: they never become zombies.
    _become_daemon()


def _become_another_program() -> None:
    """Become a daemon that runs another program, with no environment except the test's marker."""
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
    """Fork again and again; each child has its own session, and each parent exits at once."""
    if os.fork() == 0:
        for _ in range(50_000):
            os.setsid()
            if os.fork():
                os._exit(0)
        _idle()
    return "multiplied"


def spread() -> str:
    """Start 64 processes in 64 sessions; all of them keep running."""
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


def stop_guardian() -> None:
    os.kill(os.getppid(), signal.SIGSTOP)
    kill_self()


def interrupt_all() -> None:
    """Send a signal to the whole process group, as in a careless cleanup."""
    os.killpg(0, signal.SIGTERM)
    time.sleep(60)


def leave_group() -> None:
    """Continue in a child with its own session, and exit; the child answers."""
    if os.fork():
        os._exit(0)
    os.setsid()


def answer_in_child() -> None:
    """Let a forked child continue next to its parent."""
    os.fork()


def allocate_in_daemon() -> None:
    if os.fork() == 0:
        _become_daemon()
        allocate()
    time.sleep(60)
