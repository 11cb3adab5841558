"""Ctrl-C and SIGTERM at any moment of any command: exit code 130, one line, nothing left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from process_faults.support import allow_interrupts, group_members, is_gone, wait_until
from sampling import sampled
from time_limits import over_within

from harness.checking.reproducer import save
from harness.checking.request import Request, make_case
from harness.language.model import load_spec
from harness.results.cell import Cell

HARNESS = Path(sys.executable).with_name("harness")
MODEL = "lesson6/simple_rnn"
TEXT = "the quick brown fox jumps over the lazy dog. " * 60
# Seconds of a start in which signals are sent, and between two of them: ``make fuzz`` takes 0.02.
LATEST, STEP = 1.2, float(os.environ.get("HARNESS_INTERRUPT_STEP", "0.2"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, weights and a reproducer."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "text").write_text(TEXT)
    train = [HARNESS, "train", MODEL, "--backend", "numpy", "--text", "text", "--epochs", "1"]
    train += ["--size", "hidden=8", "--weights", "weights"]
    subprocess.run(train, cwd=folder, check=True, capture_output=True, timeout=120)
    cell = Cell(MODEL, "numpy", "cpu", "float64", "derived")
    save(folder, cell, make_case(load_spec(MODEL), Request(), own=False), "gradients")
    export = [HARNESS, "export", MODEL, "--weights", "weights", "--to", "jax", "--output", "x.npz"]
    subprocess.run(export, cwd=folder, check=True, capture_output=True, timeout=300)
    return folder


# Commands of each kind: at once, with workers, for long, and with files that are written.
OFTEN = ("list", "check", "bench", "train", "export")
COMMANDS: dict[str, tuple[str, ...]] = {
    "list": (),
    "schema": ("model",),
    "explain": (MODEL, "--backend", "numpy"),
    "check": (MODEL, "--backend", "numpy"),
    "bench": (MODEL, "--backend", "numpy", "--rounds", "3"),
    "compare": ("none.json", "none.json"),
    "train": (MODEL, "--backend", "numpy", "--text", "text", "--epochs", "1000"),
    "generate": (
        MODEL,
        *("--backend", "numpy", "--weights", "weights", "--prompt", "the quick ", "--length"),
        "100000",
    ),
    "run": (MODEL, "--backend", "numpy"),
    "replay": ("lesson6-simple_rnn-numpy-float64-derived",),
    "export": (MODEL, "--weights", "weights", "--to", "jax", "--output", "y.npz"),
    "import": (MODEL, "x.npz", "--from", "jax", "--weights", "w2", "--like", "weights"),
}


def started(folder: Path, command: Sequence[str]) -> subprocess.Popen[str]:
    """A command that hears signals already: the time before is the interpreter's own."""
    run = subprocess.Popen(
        allow_interrupts([HARNESS, *command]),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert wait_until(lambda: _hears(run.pid) or run.poll() is not None, 30.0)
    return run


def _hears(pid: int) -> bool:
    """Whether a process catches SIGHUP, which Python itself does not."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGHUP - 1) & 1)


def _descendants(pid: int) -> list[int]:
    """All processes below one."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in file.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *_descendants(child)]
    return found


def interrupted(
    folder: Path, command: Sequence[str], seconds: float, number: signal.Signals = signal.SIGINT
) -> bool:
    """Send a signal so long after the start; whether it came before the command was done."""
    run = started(folder, command)
    time.sleep(seconds)
    below = _descendants(run.pid)
    # As a terminal does it: all of the group.
    if run.poll() is None:
        os.killpg(run.pid, number)
    with over_within(30.0):
        output, errors = run.communicate(timeout=60)
    case = f"{command} after {seconds:.2f} s: {run.returncode}\n{errors}"
    assert "Traceback" not in errors + output, case
    assert "Exception ignored" not in errors, case
    assert "Aborted" not in errors, case
    assert wait_until(lambda: all(map(is_gone, below)), 10.0), case
    assert group_members(run.pid) == [], case
    if run.returncode != 130:
        # It was done, and its exit code is its own: of these, 2 is compare's, for it has no files.
        assert run.returncode in (0, 2), case
        assert "interrupted" not in errors, case
        return False
    assert [line for line in errors.splitlines() if line.startswith("interrupted")], case
    assert errors.count("interrupted") == 1, case
    return True


@pytest.mark.parametrize("name", sampled(COMMANDS, OFTEN))
def test_ctrl_c_while_a_command_starts(name: str, made: Path) -> None:
    moments = (0.0, 0.03, 0.07, 0.15, 0.4, 0.8)
    hits = [interrupted(made, (name, *COMMANDS[name]), moment) for moment in moments]
    assert hits[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(COMMANDS, OFTEN))
def test_ctrl_c_at_any_moment(name: str, made: Path) -> None:
    for count in range(int(LATEST / STEP)):
        if not interrupted(made, (name, *COMMANDS[name]), count * STEP):
            assert count * STEP > 0.05
            break


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("name", ["check", "generate", "train", "explain"])
def test_other_signals_end_a_command_likewise(
    name: str, number: signal.Signals, made: Path
) -> None:
    for moment in (0.0, 0.3):
        assert interrupted(made, (name, *COMMANDS[name]), moment, number)


@pytest.mark.usefixtures("system")
def test_a_second_signal_does_not_cut_the_ending_short(made: Path) -> None:
    run = started(made, ("check", *COMMANDS["check"]))
    time.sleep(0.8)
    below = _descendants(run.pid)
    for _ in range(20):
        run.send_signal(signal.SIGINT)
        time.sleep(0.002)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert errors.count("interrupted") == 1
    assert "Traceback" not in errors
    assert wait_until(lambda: all(map(is_gone, below)), 10.0)


def test_a_background_job_that_ignores_ctrl_c_goes_on(made: Path) -> None:
    ignoring = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    ignoring += "os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", ignoring, HARNESS, "check", MODEL, "--backend", "numpy"]
    run = subprocess.Popen(
        [*command, "--check", "values"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(0.3)  # until Ctrl-C is ignored
    while run.poll() is None:
        run.send_signal(signal.SIGINT)
        time.sleep(0.05)
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 0, errors
    assert "2 agree" in output


def ends_once_ready(code: str, **environment: str) -> None:
    """Run a program that says when it is ready; Ctrl-C then ends it soon, in one line."""
    run = subprocess.Popen(
        allow_interrupts([sys.executable, "-c", code]),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    time.sleep(0.2)
    with over_within(30.0):
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (130, "interrupted\n")


SWALLOWING = """
import sys, time
from harness.command import interrupts

class Loud:
    def __del__(self):
        time.sleep(1.0)

def run():
    print("ready", flush=True)
    Loud()
    time.sleep(30)
    return 0

interrupts.arm()
sys.exit(interrupts.run_stoppable(run))
"""


def test_an_interrupt_that_a_destructor_swallows_is_raised_again() -> None:
    ends_once_ready(SWALLOWING)


WRAPPING = """
import sys, time
from harness.command import interrupts

def run():
    print("ready", flush=True)
    try:
        time.sleep(30)
    except BaseException as error:
        raise ValueError("what was built is wrong") from error
    return 0

interrupts.arm()
sys.exit(interrupts.run_stoppable(run))
"""


def test_an_interrupt_of_which_a_library_makes_an_error_of_its_own_ends_likewise() -> None:
    ends_once_ready(WRAPPING)


# Where the main thread is when Ctrl-C comes, while a thread hangs as it writes to standard error.
UNREAD = {
    "as it starts": "print('ready', flush=True); os.write(2, b'x')",
    "writing": "interrupts.run_stoppable(lambda: print('ready', flush=True) or os.write(2, b'x'))",
    "printing": "interrupts.run_stoppable(lambda: print('ready', flush=True) or time.sleep(30))",
    "waiting for what writes": """
def run():
    thread = threading.Thread(target=os.write, args=(2, b"x"))
    thread.start()
    try:
        print("ready", flush=True)
        time.sleep(30)
    finally:
        thread.join()

interrupts.run_stoppable(run)
""",
}
HEAD = """
import os, sys, threading, time
from harness.command import interrupts
interrupts.arm()
"""


@pytest.mark.parametrize("place", UNREAD)
def test_ctrl_c_ends_a_program_whose_standard_error_nobody_reads(place: str) -> None:
    code = f"{HEAD}{UNREAD[place]}\ninterrupts.leave()"
    reading, writing = os.pipe2(os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        os.set_blocking(writing, True)
        run = subprocess.Popen(
            allow_interrupts([sys.executable, "-c", code]), stdout=subprocess.PIPE, stderr=writing
        )
        with run:
            assert run.stdout is not None
            assert run.stdout.readline() == b"ready\n"
            time.sleep(0.2)
            run.send_signal(signal.SIGINT)
            try:
                # One second, and not the ten that cleaning up may take where somebody reads.
                assert run.wait(5.0) == 130
            finally:
                run.kill()
    finally:
        os.close(reading)
        os.close(writing)


LONG = """
import sys
import numpy
from harness.command import interrupts

def run():
    matrix = numpy.ones((7000, 7000))
    print("ready", flush=True)
    matrix @ matrix
    return 0

interrupts.arm()
sys.exit(interrupts.run_stoppable(run))
"""


def test_a_long_call_into_c_is_ended_too() -> None:
    ends_once_ready(LONG, OPENBLAS_NUM_THREADS="1")


def test_the_entry_point_imports_next_to_nothing() -> None:
    code = "import sys; old = set(sys.modules); import harness.cli; print(*set(sys.modules) - old)"
    run = subprocess.run(
        [sys.executable, "-S", "-c", f"import site; site.main(); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = {"typing", "click", "pathlib", "re", "rich", "numpy", "pydantic"}
    assert not heavy & set(run.stdout.split())
    assert {n for n in run.stdout.split() if n.startswith("harness")} == {
        "harness",
        "harness.cli",
        "harness.command",
        "harness.command.interrupts",
    }
