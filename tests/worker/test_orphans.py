"""Whatever a worker has started is gone with it: daemons too, however the command ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_faults.support import MIB, PATH, is_gone, launch, marked, wait_until
from time_limits import over_within

from harness.files import system
from harness.worker.posix_processes import TOKEN_VARIABLE, end_abandoned
from harness.worker.worker import Worker

pytestmark = pytest.mark.usefixtures("system")
# What is left behind would live for a minute.
SECONDS = 15.0
# The worker, its guardian and eight that it has left behind.
LITTERED = 10


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A mark that workers and what they start have; whatever is left of them ends with the test."""
    name = uuid.uuid4().hex
    monkeypatch.setenv("FAULTS_MARK", name)
    # This process was started without it, so it is not found by it.
    yield name
    for pid in marked(name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def littering(mark: str) -> Iterator[Worker]:
    with Worker(launch()) as worker:
        assert worker.call("litter").value == "littered"
        assert len(marked(mark)) == LITTERED
        yield worker


def escaped() -> int:
    """How many processes of ``litter`` outlive their worker: only Linux finds the daemon that has
    emptied its environment."""
    return 0 if system.LINUX else 1


def all_gone(mark: str, but: int = 0) -> bool:
    return wait_until(lambda: len(marked(mark)) == but, SECONDS)


# How a worker ends: what is done to it, and the status and cause of the call.
ENDS = {
    "closed": None,
    "kill_self": ("crashed", "SIGKILL"),
    "segfault": ("crashed", "SIGSEGV"),
    "leave": ("crashed", "exit code 3 during the call"),
    "hold_gil": ("timeout", "no answer in 0.5 s"),
    "stop_self": ("timeout", "no answer in 0.5 s"),
    # Its children hold the socket still.
    "close_socket": ("timeout", "no answer in 0.5 s"),
}


@pytest.mark.parametrize("end", ENDS)
def test_all_that_a_worker_has_started_ends_with_it(littering: Worker, mark: str, end: str) -> None:
    expected = ENDS[end]
    if expected is None:
        littering.close()
    else:
        payload = {"code": 3} if end == "leave" else {}
        outcome = littering.call(end, payload, timeout=0.5 if "timeout" in expected else 60.0)
        assert (outcome.status, outcome.cause) == expected
    # Not only soon: the call, or the close, has seen to it before it returned.
    assert len(marked(mark)) == escaped()


@pytest.mark.parametrize("verb", ["multiply", "spread"])
def test_processes_that_multiply_are_caught_up_with(mark: str, verb: str) -> None:
    if verb == "multiply" and escaped():
        pytest.skip("only Linux kills processes that fork faster than they are listed")
    with Worker(launch()) as worker:
        assert worker.call(verb).ok
        if verb == "spread":
            assert len(marked(mark)) == 2 + 64
    assert all_gone(mark)
    time.sleep(0.2)
    assert marked(mark) == []  # one that moves may be missed once


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGSTOP])
def test_a_worker_may_harm_its_guardian(littering: Worker, mark: str, number: int) -> None:
    """Only what has another environment outlives a guardian that is killed: see docs/workers.md."""
    dies = number in (signal.SIGKILL, signal.SIGTERM)
    timeout = 60.0 if dies else 0.5
    outcome = littering.call("kill_guardian", {"number": number}, timeout)
    expected = ("crashed", "SIGKILL") if dies else ("timeout", "no answer in 0.5 s")
    assert (outcome.status, outcome.cause) == expected
    assert all_gone(mark, but=1 if number == signal.SIGKILL else escaped())
    assert littering.call("echo", {"value": 1}).value == 1


def test_guardian_that_is_stopped_and_worker_that_dies(littering: Worker, mark: str) -> None:
    """The guardian sees nothing of it until the parent wakes it, after the time-out."""
    guardian = _ancestors(littering.pid)[0]
    os.kill(guardian, signal.SIGSTOP)
    outcome = littering.call("kill_self", timeout=0.5)
    assert (outcome.status, is_gone(guardian)) == ("timeout", True)
    assert all_gone(mark, escaped())


def start(ending: str = "time.sleep(60)", **options: object) -> tuple[subprocess.Popen[str], int]:
    """A parent whose worker has left things behind; its worker's number."""
    parent = subprocess.Popen(
        [sys.executable, "-m", "process_faults.parent", "litter", ending],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | PATH,
        **options,  # type: ignore[call-overload]
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL]
)
def test_signal_to_the_parent_leaves_nothing(mark: str, number: signal.Signals) -> None:
    """Whoever uses the harness as a library may not catch any."""
    parent, worker = start()
    assert not is_gone(worker)
    parent.send_signal(number)
    parent.communicate(timeout=60)
    assert parent.returncode == -number
    assert all_gone(mark, escaped())


@pytest.mark.parametrize(
    "ending", ["", "sys.exit(3)", "1 / 0", "worker.close()", "import os; os._exit(0)"]
)
def test_end_of_the_parent_leaves_nothing(mark: str, ending: str) -> None:
    parent, _ = start(ending or "pass")
    parent.communicate(timeout=60)
    assert all_gone(mark, escaped())


def test_hangup_of_the_terminal_leaves_nothing(mark: str) -> None:
    terminal, theirs = os.openpty()
    # No pty.fork(): this process may have threads, of a framework that another test has loaded.
    parent = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-m", "process_faults.parent", "litter"],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        env=os.environ | PATH,
    )
    os.close(theirs)
    text = b""
    while b"\n" not in text:
        text += os.read(terminal, 100)
    assert len(marked(mark)) == LITTERED + 1  # the parent, too, was started under the mark
    os.close(terminal)
    parent.wait(5.0)
    assert all_gone(mark, escaped())


# Alone: a command of another test would be the next.
@pytest.mark.alone
def test_parent_and_guardian_killed_at_once_leave_what_the_next_command_ends(mark: str) -> None:
    parent, worker = start()
    guardian = _ancestors(worker)[0]
    parent.send_signal(signal.SIGSTOP)  # or it would see to the rest
    os.kill(guardian, signal.SIGKILL)
    parent.kill()
    parent.communicate()
    assert wait_until(lambda: is_gone(worker), SECONDS)
    assert len(marked(mark)) >= 3
    next_, another = start("worker.call('echo'); time.sleep(60)")
    theirs = LITTERED + 1
    # What has emptied its environment is not found: the one of another program.
    assert wait_until(lambda: len(marked(mark)) == theirs + 1, SECONDS)
    assert not is_gone(another)
    next_.kill()
    next_.communicate()
    assert wait_until(lambda: len(marked(mark)) == 1 + escaped(), SECONDS)


def test_who_sweeps_wakes_a_guardian_and_leaves_the_rest_to_it(mark: str) -> None:
    """Killed in the middle of its work, it would leave what has emptied its environment."""
    parent, worker = start()
    (guardian, *_) = _ancestors(worker)
    os.kill(guardian, signal.SIGSTOP)
    parent.kill()
    parent.communicate()
    end_abandoned()
    assert all_gone(mark, escaped())


def _ancestors(pid: int | None) -> list[int]:
    found: list[int] = []
    while pid and pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def test_the_living_and_the_strangers_are_left_alone(mark: str) -> None:
    parent, worker = start()
    stranger = subprocess.Popen(["sleep", "60"], env={TOKEN_VARIABLE: f"pid:[1] {parent.pid} 1 0"})
    odd = subprocess.Popen(["sleep", "60"], env={TOKEN_VARIABLE: "\n of one's own"})
    try:
        end_abandoned()
        assert not is_gone(worker)
        assert len(marked(mark)) == LITTERED + 1
        assert stranger.poll() is None
        assert odd.poll() is None
    finally:
        for process in (stranger, odd, parent):
            process.kill()
            process.communicate()


def test_memory_counts_what_has_left_the_group(mark: str) -> None:
    with Worker(launch(memory_limit=300 * MIB)) as worker:
        outcome = worker.call("allocate_in_daemon", timeout=120)
        assert outcome.status == "out-of-memory"
    assert all_gone(mark)


def test_guardian_is_small_and_shows_what_it_is(littering: Worker) -> None:
    guardian = _ancestors(littering.pid)[0]
    shown = Path(f"/proc/{guardian}/cmdline").read_bytes().rstrip(b"\0")
    assert (shown == b"harness-guardian") != bool(escaped())
    proportional = next(
        int(line.split()[1])
        for line in Path(f"/proc/{guardian}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    )
    assert proportional < 12 << 10


def count_written_bytes(pid: int | None) -> int:
    numbers = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(numbers["wchar"])


def test_log_is_cut_between_calls_as_well(mark: str) -> None:
    """By then it has printed hundreds of times what is kept of it."""
    with Worker(launch()) as worker:
        assert worker.call("print_for_ever").ok
        assert worker._process is not None
        log = worker._process.log
        assert wait_until(lambda: count_written_bytes(worker.pid) > 1 << 30, 60.0)
        assert wait_until(lambda: os.fstat(log.fileno()).st_blocks * 512 < 64 << 20, 10.0)


def test_exit_that_would_hang_does_not(mark: str) -> None:
    with Worker(launch()) as worker:
        assert worker.call("hang_at_exit").ok
        with over_within(20.0):
            worker.close()
    assert marked(mark) == []
