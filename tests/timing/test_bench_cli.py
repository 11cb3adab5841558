"""``harness bench`` as a user runs it: output, files, exit codes, and Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from process_faults.support import allow_interrupts, is_gone, wait_until

from harness.timing.noise import ROUGH

HARNESS = shutil.which("harness", path=os.path.dirname(sys.executable)) or "harness"
TINY = (
    *("bench", "lesson6/three_char", "--backend", "numpy", "--path", "derived", "--rounds", "2"),
    *("--size", "hidden=6", "--size", "vocab=7", "--size", "factors=3"),
)
LENIENT = ("--threshold", "10000%")


def test_file_markdown_and_comparison_with_itself(tmp_path: Path) -> None:
    first = subprocess.run(
        [
            HARNESS,
            *TINY,
            "--batch",
            "2,4",
            "--mode",
            "forward",
            "--records",
            "a.json",
            "--print-markdown",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert first.returncode == 0, first.stdout + first.stderr
    assert "**forward, batch 2, factors 3, hidden 6, vocab 7**" in first.stdout
    assert "| system | numpy |" in first.stdout
    assert "seconds grow as batch^" in first.stdout
    assert "[numpy-forward-b4-t3-factors3-hidden6-vocab7]: " in first.stderr
    content = json.loads((tmp_path / "a.json").read_text())
    assert len(content["benchmarks"]) == 2
    ((*command,),) = content["harness"]["commands"]
    assert command[: len(TINY)] == [*TINY]
    (fit,) = content["harness"]["slopes"]
    assert fit["values"] == [2, 4]
    second = subprocess.run(
        [HARNESS, *TINY, "--batch", "2", "--mode", "forward", "--baseline", "a.json", *LENIENT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 0, second.stdout + second.stderr
    # The other batch was not asked for, and is not missed.
    assert re.search(r"10000% .*: (.*; nothing else|nothing) changed\n$", second.stdout)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_quick_speeds_are_marked_as_rough(tmp_path: Path) -> None:
    command = [HARNESS, *TINY, "--mode", "forward", "--quick", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["benchmarks"]
    assert ROUGH in cell["extra_info"]["doubts"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_no_worker_and_no_file(
    number: signal.Signals, tmp_path: Path
) -> None:
    command = [HARNESS, *TINY, "--rounds", "1000", "--batch", "2", "--records", "a.json"]
    run = subprocess.Popen(
        allow_interrupts(command),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert wait_until(lambda: len(_workers(run.pid)) == 1, 30.0)
    (worker,) = _workers(run.pid)
    run.send_signal(number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "interrupted; nothing was measured yet" in errors
    assert "Traceback" not in errors
    assert wait_until(lambda: is_gone(worker), 10.0)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_keeps_what_is_done(tmp_path: Path) -> None:
    """The first of many groups is measured, shown and kept, and marked as a part."""
    batches = ",".join(map(str, range(2, 60)))
    command = [*TINY, "--batch", batches, "--mode", "forward", "--records", "a.json"]
    run = subprocess.Popen(
        allow_interrupts([HARNESS, *command]),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("1/58"):
            break
    run.send_signal(signal.SIGINT)
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    content = json.loads((tmp_path / "a.json").read_text())
    done = len(content["benchmarks"]) + len(content["harness"]["without_speed"])
    assert 1 <= done < 58
    assert content["harness"]["incomplete"] == {"done": done, "planned": 58}
    are = "is" if done == 1 else "are"
    assert f"interrupted; {done} of 58 cells {are} done; the results are in a.json" in errors
    assert "Traceback" not in errors
    assert "forward, batch 2, factors 3" in output


def _workers(parent: int) -> list[int]:
    """The workers that a process has started, by their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"harness.worker.serve" in words and str(parent).encode() in words:
                found.append(int(entry.name))
    return found
