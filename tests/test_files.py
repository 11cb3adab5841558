"""Files that a user names are regular and of limited size, and reading one never waits."""

import os
import socket
from pathlib import Path

import pytest

from harness.files import FileFault, read_bytes


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"ten bytes.")
    assert read_bytes(path, 10, "a text") == b"ten bytes."


def test_a_larger_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"ten bytes.")
    with pytest.raises(FileFault, match="10 bytes are too many for a text; at most 9 are"):
        read_bytes(path, 9, "a text")


def test_a_sparse_file_of_terabytes_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 1 << 42)
    with pytest.raises(FileFault, match="4,398,046,511,104 bytes are too many"):
        read_bytes(path, 1000, "a text")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe, plug = tmp_path / "pipe", tmp_path / "plug"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(plug))
        for path, kind in (
            (pipe, "a named pipe"),
            (Path("/dev/zero"), "a device"),
            (Path("/dev/null"), "a device"),
            (tmp_path, "a folder"),
        ):
            with pytest.raises(FileFault, match=kind):
                read_bytes(path, 1000, "a text")
        with pytest.raises(FileFault, match="no such device"):
            read_bytes(plug, 1000, "a text")


def test_a_link_to_a_pipe_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with pytest.raises(FileFault, match="a named pipe"):
        read_bytes(tmp_path / "link", 1000, "a text")


def test_a_file_that_says_size_0_is_limited_too() -> None:
    with pytest.raises(FileFault, match="5 bytes are too many"):
        read_bytes("/proc/self/status", 4, "a text")


@pytest.mark.parametrize("name", ["absent", "a" * 300, "nul\0", "a/b/c"])
def test_a_name_that_cannot_be_one_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileFault) as caught:
        read_bytes(tmp_path / name, 1000, "a text")
    assert caught.value.missing == (name in ("absent", "a/b/c"))


def test_a_name_that_is_not_utf_8_can_be_printed(tmp_path: Path) -> None:
    with pytest.raises(FileFault) as caught:
        read_bytes(os.fsencode(tmp_path).decode() + "/\udcff", 1000, "a text")
    str(caught.value).encode()
