"""The script beside a reproducer runs as a worker does: watched, limited, and surely ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from process_faults.support import MIB, marked, wait_until
from time_limits import over_within
from wording import Wording

from harness.upstream import bundle
from harness.worker.process import LOG_TAIL

# Leaves a child in a session of its own, then hangs.
HANGING = """
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(60)
print("started", flush=True)
time.sleep(60)
"""
PARENT = """
import sys
from pathlib import Path
from harness.upstream import bundle
bundle.run_script(Path(sys.argv[1]), sys.executable, {})
"""


def shown(folder: Path, source: str, memory: int | None = None) -> bundle.ScriptOutcome:
    (folder / bundle.FILE).write_text(source)
    return bundle.run_script(folder, sys.executable, {"SCRIPT_MARK": str(folder)}, memory)


def test_a_script_gives_its_exit_code_and_what_it_printed(tmp_path: Path, wording: Wording) -> None:
    source = "import os, sys\nprint('out')\nos.write(2, b'err')\nsys.exit(1)"
    assert shown(tmp_path, source) == bundle.ScriptOutcome(1, "out\nerr")
    killed = shown(tmp_path, "import os\nprint('out', flush=True)\nos.kill(os.getpid(), 11)")
    assert (killed.code, killed.printed.startswith("out\n")) == (-signal.SIGSEGV, True)
    missing = bundle.run_script(tmp_path, "/nowhere/python", {})
    assert missing.code not in (0, 1)
    wording.line(missing.printed, "/nowhere/python")


# Is wrong from the second process on.
LATE = """
import sys
from pathlib import Path
place = Path(__file__).with_name("runs")
number = len(place.read_text()) if place.exists() else 0
place.write_text("x" * (number + 1))
sys.exit(1 if number == FIRST_WRONG else 0)
"""


@pytest.mark.parametrize(("first_wrong", "code", "runs"), [(0, 1, 1), (2, 1, 3), (9, 0, 3)])
def test_a_script_must_agree_in_several_processes(
    tmp_path: Path, first_wrong: int, code: int, runs: int
) -> None:
    (tmp_path / bundle.FILE).write_text(LATE.replace("FIRST_WRONG", str(first_wrong)))
    found = bundle.run_until_it_differs(tmp_path, sys.executable, {})
    assert (found.code, found.runs) == (code, runs)
    assert len((tmp_path / "runs").read_text()) == runs


def test_nothing_is_left_of_a_script_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "PATIENCE", 1.5)
    with over_within(30.0):
        found = shown(tmp_path, HANGING)
    assert found == bundle.ScriptOutcome(None, "started\nit was ended after 1.5 s")
    assert marked(str(tmp_path)) == []


def test_only_the_end_of_what_a_script_prints_is_kept(tmp_path: Path) -> None:
    found = shown(tmp_path, "for _ in range(3000): print('x' * 99_999)\nprint('end')")
    assert (found.code, found.printed[-5:]) == (0, "\nend\n")
    assert len(found.printed) <= LOG_TAIL


def test_a_script_may_not_take_all_of_the_memory(tmp_path: Path, wording: Wording) -> None:
    found = shown(tmp_path, "import time\nx = b'x' * (300 << 20)\ntime.sleep(60)", 200 * MIB)
    assert found.code is None
    wording.line(found.printed, "200 MiB")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_a_script_when_the_harness_is_killed(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / bundle.FILE).write_text(HANGING)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        env={**os.environ, "SCRIPT_MARK": str(tmp_path)},
    )
    # The parent, its guardian, the script and its child.
    assert wait_until(lambda: len(marked(str(tmp_path))) == 4, 20.0)
    parent.send_signal(number)
    parent.wait(60)
    assert wait_until(lambda: not marked(str(tmp_path)), 15.0)
