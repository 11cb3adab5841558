"""Starts that fail: how long they may take, and that they are not tried again and again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from process_faults.support import launch
from time_limits import over_within
from wording import Wording

from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.checking.runner import CheckEvents
from harness.errors import UsageError
from harness.worker.launch import Launch
from harness.worker.worker import Worker

SPECS = ("lesson6/simple_rnn", "lesson6/three_char", "lesson6/first_rnn")
# Seconds of a start that never ends, in which the good one must start, and of one that fails by
# itself, however busy the machine is.
LIMIT, PATIENCE = 6.0, 60.0
# A backend beside the good one, whose import does what the test says.
PLUGIN = """
import os, sys, time
{at_import}
"""
HONEST = """
from harness.runtime import plugins
from harness.runtime.hookspecs import hookimpl

@hookimpl
def harness_backend(name):
    backend = plugins.load("numpy")
    backend.name = name
    return backend
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path with a plugin of which the code is still to be written."""
    metadata = tmp_path / "odd_starts-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-starts\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[harness.backends]\nodd = odd_starts\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return tmp_path


def write(folder: Path, at_import: str) -> None:
    count = f"open({str(folder / 'starts')!r}, 'a').write('x')"
    (folder / "odd_starts.py").write_text(PLUGIN.format(at_import=f"{count}\n{at_import}"))


def starts(folder: Path) -> int:
    """How often the import has begun: never, if the process was ended before it came so far."""
    file = folder / "starts"
    return len(file.read_text()) if file.exists() else 0


# What the import does: the verdict of every cell, words of the first and of the later ones, starts.
IMPORTS = {
    "time.sleep(100)": ("timeout", "no answer in 6.0 s at its start", 1),
    "os.kill(os.getpid(), 19)": ("timeout", "no answer in 6.0 s at its start", 1),
    "os.abort()": ("crashed", "SIGABRT", 2),
    "os._exit(0)": ("crashed", "exit code 0 at its start", 2),
    "raise ImportError('libodd.so')": ("error", "ImportError: libodd.so", 2),
    "sys.exit('no licence')": ("error", "SystemExit: no licence", 2),
    "os.fork() or None; raise ImportError('from both')": ("error", "ImportError: from both", 2),
}


@pytest.mark.parametrize("at_import", IMPORTS)
def test_a_backend_that_cannot_start_is_not_started_for_every_cell(
    installed: Path, at_import: str
) -> None:
    verdict, words, count = IMPORTS[at_import]
    limit = LIMIT if verdict == "timeout" else PATIENCE
    write(installed, at_import)
    told: list[tuple[str, float]] = []

    class Kept(CheckEvents):
        def starting(self, backend: str, seconds: float) -> None:
            told.append((backend, seconds))

    request = Request(
        SPECS, ("numpy", "odd"), checks=("values",), timeout=60.0, start_timeout=limit, jobs=2
    )
    with over_within(30.0), Engine(request, Kept()) as engine:
        report = engine.run()
    assert report.exit_code == 3
    good = [r for r in report.results if r.cell.backend == "numpy"]
    odd = [r for r in report.results if r.cell.backend == "odd"]
    assert [r.verdict for r in good] == ["agree"] * 6
    assert [r.verdict for r in odd] == [verdict] * 6
    assert all(r.could_not_run for r in odd)
    details = [r.findings[0].detail for r in odd]
    assert all(words in detail for detail in details)
    again = [detail.startswith("not restarted after this failure: ") for detail in details]
    assert again == [False] * count + [True] * (6 - count)
    assert starts(installed) == count
    assert [b for b, _ in told].count("odd") == count
    assert {seconds for _, seconds in told} == {limit}


def test_a_start_that_fails_once_is_tried_again(installed: Path) -> None:
    """A driver may be busy, a file just be replaced."""
    first = f"if len(open({str(installed / 'starts')!r}).read()) % 2: raise ImportError('once')"
    write(installed, f"{first}\n{HONEST}")
    with Worker(Launch("odd")) as worker:
        for number in range(4):
            assert "once" in worker.start().cause
            assert not worker.given_up
            outcome = worker.start()
            assert outcome.ok, (number, outcome.cause)
            worker.close()


def test_what_was_given_up_stays_so_when_it_is_closed(wording: Wording) -> None:
    with Worker(launch(handler="process_faults.identities:hang", start_timeout=0.3)) as worker:
        wording(worker.call("speak").cause, "0.3")
        worker.close()
        again = worker.call("speak")
    wording(again.cause, "0.3")
    assert (again.status, again.start_failed, worker.starts) == ("timeout", True, 1)


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon"])
def test_start_timeout_is_a_positive_number(
    given: str, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    monkeypatch.setenv("HARNESS_START_TIMEOUT", given)
    with wording.raises(UsageError, "HARNESS_START_TIMEOUT"):
        Launch("numpy")
    monkeypatch.delenv("HARNESS_START_TIMEOUT")
    if given != "soon":
        with wording.raises(UsageError):
            Engine(Request(SPECS, ("numpy",), start_timeout=float(given)))


HARNESS = str(Path(sys.executable).parent / "harness")
COMMANDS = {
    "check": (["check", SPECS[0], "--backend", "odd"], 3),
    "bench": (["bench", SPECS[0], "--backend", "odd", "--mode", "forward", "--batch", "2"], 3),
    "train": (["train", SPECS[0], "--backend", "odd", "--weights", "w.safetensors"], 3),
    "explain": (["explain", SPECS[0], "--backend", "odd"], 0),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_so_within_the_time_of_one_start(
    installed: Path, command: str, wording: Wording
) -> None:
    write(installed, "time.sleep(100)")
    words, code = COMMANDS[command]
    with over_within(50.0):
        done = subprocess.run(
            [HARNESS, *words],
            cwd=installed,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HARNESS_START_TIMEOUT": "1"},
        )
    assert done.returncode == code, done.stdout + done.stderr
    wording.line(done.stdout + done.stderr, "answer in 1.0")
    assert "Traceback" not in done.stderr
    # On a busy machine the second is over before Python itself has started.
    assert starts(installed) <= 1


def test_numpy_has_one_thread_unless_the_user_sets_another_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "OPENBLAS_NUM_THREADS"
    monkeypatch.delenv(name, raising=False)
    assert Launch("numpy").variables()[name] == "1"
    assert name not in Launch("numpy", cores=4).variables()
    assert Launch("numpy", environment={name: "2"}).variables()[name] == "2"
    monkeypatch.setenv(name, "3")
    assert Launch("numpy").variables()[name] == "3"


def test_threads_do_not_spin_beside_other_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert Launch("torch").variables()["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "OMP_WAIT_POLICY" not in Launch("torch", cores=2).variables()
