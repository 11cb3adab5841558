"""Files that are written whole: interrupted, killed, through links, beside devices."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from unprivileged import unprivileged
from wording import Wording

from harness.files.atomic import LEFT_OVER, sweep, write_whole


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(*_: object) -> None:
        assert len(list(tmp_path.iterdir())) == 2  # the new content lies beside the old
        raise error

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(error)):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_then_name_then_folder_reach_the_disk_in_that_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = tmp_path / "file", []
    fsync, replace = os.fsync, os.replace

    def sync(handle: int) -> None:
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        done.append("folder" if folder else f"{os.fstat(handle).st_size} bytes")
        fsync(handle)

    def rename(old: Path, new: Path) -> None:
        done.append("name")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    write_whole(path, b"12345")
    assert done == ["5 bytes", "name", "folder"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    link, real = tmp_path / "latest", tmp_path / "runs" / "third"
    real.write_bytes(b"old")
    link.symlink_to(real)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_what_is_no_file_is_not_replaced(tmp_path: Path, wording: Wording) -> None:
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (pipe, folder):
        with wording.raises(OSError):
            write_whole(path, b"new")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [folder, pipe]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_says_who_may_read(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_names_of_any_length_and_folders_that_are_not_there(tmp_path: Path) -> None:
    longest = tmp_path / ("é" * 127)
    write_whole(longest, b"new")
    assert longest.read_bytes() == b"new"
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "absent" / "file", b"new")
    with pytest.raises(OSError, match="too long"):
        write_whole(tmp_path / ("é" * 128), b"new")
    assert list(tmp_path.iterdir()) == [longest]


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_full_disk_is_told_and_the_old_file_kept(tmp_path: Path, size: int) -> None:
    """What does not fit is found at the first byte, or in the middle."""
    full = (
        "import pathlib, resource, signal, sys; from harness.files.atomic import write_whole\n"
        "path, least = pathlib.Path(sys.argv[1]), int(sys.argv[2])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (least - 1, least - 1))\n"
        "try: write_whole(path, bytes(least))\n"
        "except OSError as error: print(error.strerror)\n"
    )
    path = tmp_path / "file"
    write_whole(path, b"old")
    command = [sys.executable, "-c", full, str(path), str(size)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("File too large\n", "")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_parts_are_written_one_after_the_other(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"ab", memoryview(b"xcdx")[1:3], b"")
    assert (tmp_path / "file").read_bytes() == b"abcd"
    write_whole(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b""


def test_a_name_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="null byte"):
        write_whole(tmp_path / "\0", b"new")


def test_what_cannot_be_removed_does_not_hide_what_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(os, "unlink", lambda *_: os.rmdir("/absent"))
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", b"new")


def test_a_folder_that_may_be_written_and_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    folder.mkdir(mode=0o777)
    folder.chmod(0o333)
    with unprivileged(folder):
        write_whole(folder / "file", b"new")
        sweep(folder)
    assert (folder / "file").read_bytes() == b"new"


def test_only_files_are_swept_and_nothing_waited_for(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.touch()
    os.mkfifo(tmp_path / ".harness-pipe.tmp")
    (tmp_path / ".harness-folder.tmp").mkdir()
    (tmp_path / ".harness-link.tmp").symlink_to(precious)
    (tmp_path / ".harness-lost.tmp").symlink_to("absent")
    before = sorted(tmp_path.iterdir())
    make_older(precious)
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def make_older(path: Path) -> None:
    then = path.stat().st_mtime - LEFT_OVER - 1
    os.utime(path, (then, then))


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    """Killed as its file is written and locked, just before the rename."""
    killed = (
        "import os, pathlib, signal, sys; from harness.files.atomic import write_whole; "
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        "write_whole(pathlib.Path(sys.argv[1]), b'new')"
    )
    path = tmp_path / "file"
    subprocess.run([sys.executable, "-c", killed, str(path)], check=False, timeout=60)
    (left,) = tmp_path.iterdir()
    sweep(tmp_path)
    assert left.exists()  # young: its process may be between creating and locking it
    make_older(left)
    sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_being_written_is_not_swept_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, path = os.fsync, tmp_path / "file"

    def slow(handle: int) -> None:
        for beside in tmp_path.glob(".harness-*.tmp"):
            make_older(beside)
        sweep(tmp_path)
        right(handle)

    monkeypatch.setattr(os, "fsync", slow)
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
