"""Of several trainings into the same weights one goes on; the others are told who it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from small_trainings import SYSTEM, harness, setup, train
from wording import Wording

from harness.cli import cli
from harness.errors import UsageError
from harness.files.lock import check_free, hold_lock
from harness.worker.worker import Worker

HOLD = """
import sys, pathlib
from harness.files.lock import hold_lock
with hold_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(kept: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the right to write there."""
    command = [sys.executable, "-c", HOLD, str(kept)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class TestLock:
    def test_a_second_training_is_told_who_holds_it(
        self,
        holder: subprocess.Popen[str],
        text: Path,
        kept: Path,
        worker: Worker,
        wording: Wording,
    ) -> None:
        for options in ((), ("--force",), ("--resume",)):
            found = harness(text, kept, *options)
            assert found.exit_code == 2
            wording.line(found.output, f"{holder.pid}")
            wording.line(found.output, "--weights")
        with wording.raises(UsageError):
            train(setup(text), worker, kept)
        arguments = ["import", SYSTEM, str(text), "--from", "jax", "--weights", str(kept)]
        imported = CliRunner().invoke(cli, arguments)
        assert (imported.exit_code, f"process {holder.pid}" in imported.output) == (2, True)
        # Through a link it is the same file; beside it is another.
        link = kept.with_name("link")
        link.symlink_to(kept)
        with wording.raises(UsageError):
            check_free(link)
        assert harness(text, kept.with_name("other")).exit_code == 0

    @pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
    def test_it_ends_with_its_process(
        self, end: signal.Signals | None, holder: subprocess.Popen[str], text: Path, kept: Path
    ) -> None:
        if end is None:
            assert holder.stdin is not None
            holder.stdin.close()
        else:
            holder.send_signal(end)
        holder.wait()
        assert harness(text, kept).exit_code == 0
        assert not list(kept.parent.glob(".harness-*"))

    def test_a_name_of_any_length_has_a_lock(self, tmp_path: Path) -> None:
        path = tmp_path / ("é" * 127)
        with hold_lock(path):
            assert [p.name.startswith(".harness-") for p in tmp_path.iterdir()] == [True]
            with pytest.raises(UsageError, match=f"process {os.getpid()} on"), hold_lock(path):
                pass
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, Path.write_text])
    def test_what_has_the_name_of_a_lock_and_is_none_stays(
        self, make: Callable[..., Any], kept: Path
    ) -> None:
        with hold_lock(kept):
            (lock,) = kept.parent.iterdir()
        make(lock, *(["mine"] if make is Path.write_text else []))
        mode = lock.stat().st_mode
        with pytest.raises(UsageError, match="cannot be locked"), hold_lock(kept):
            pass
        assert lock.stat().st_mode == mode

    def test_a_link_in_the_place_of_a_lock_is_not_followed(self, kept: Path) -> None:
        with hold_lock(kept):
            (lock,) = kept.parent.iterdir()
        precious = kept.with_name("precious")
        precious.touch()
        lock.symlink_to(precious)
        with pytest.raises(UsageError, match="cannot be locked"), hold_lock(kept):
            pass
        assert precious.read_bytes() == b""

    def test_of_many_at_once_one_goes_on(self, kept: Path) -> None:
        """Each takes it, counts in a file that only it may write, and gives it back."""
        program = (
            "import sys, pathlib\nfrom harness.errors import UsageError\n"
            "from harness.files.lock import hold_lock\npath, done = pathlib.Path(sys.argv[1]), 0\n"
            "while done < 50:\n"
            "    try:\n"
            "        with hold_lock(path):\n"
            "            path.write_text(str(int(path.read_text()) + 1)); done += 1\n"
            "    except UsageError: pass\n"
        )
        kept.write_text("0")
        command = [sys.executable, "-c", program, str(kept)]
        running = [subprocess.Popen(command) for _ in range(3)]
        assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
        assert kept.read_text() == "150"
