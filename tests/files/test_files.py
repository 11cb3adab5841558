"""Files that a user names are regular and of limited size, and reading one never waits."""

import os
import resource
import socket
from pathlib import Path

import pytest
from both_systems import linux_only
from wording import Wording

from harness.files.user_file import FileFault, check_regular, read_bytes, read_head, read_tail


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"ten bytes.")
    assert read_bytes(path, 10, "a text") == b"ten bytes."


def test_a_larger_file_is_refused(tmp_path: Path, wording: Wording) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"ten bytes.")
    with wording.raises(FileFault, "10 ... 9"):
        read_bytes(path, 9, "a text")


def test_a_sparse_file_of_terabytes_takes_no_memory(tmp_path: Path, wording: Wording) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 1 << 42)
    with wording.raises(FileFault, "4,398,046,511,104"):
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


@linux_only
def test_a_file_that_says_size_0_is_limited_too(wording: Wording) -> None:
    with wording.raises(FileFault, "5"):
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


@pytest.mark.parametrize("size", [0, 1, 9, 10, 65_535, 65_536, 65_537, 300_000])
def test_files_of_any_size_up_to_the_limit(size: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(256)) * (size // 256) + bytes(size % 256))
    for limit in (size, size + 1, 1 << 40):
        assert read_bytes(path, limit, "a text") == path.read_bytes()


@linux_only
def test_memory_is_taken_for_the_file_and_not_for_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"small")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 36, before[1]))
    try:
        assert read_bytes(tmp_path / "a", 1 << 45, "a text") == b"small"
        assert read_bytes("/proc/self/status", 1 << 45, "a text").startswith(b"Name:")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_file_that_grows_while_it_is_read_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    """Its size is asked for first, and it has more by then."""
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    right = os.fstat

    def early(handle: int) -> os.stat_result:
        found = list(right(handle))
        return os.stat_result([*found[:6], 3, *found[7:]])

    monkeypatch.setattr(os, "fstat", early)
    assert read_bytes(path, 100, "a text") == b"x" * 100
    with wording.raises(FileFault, "99"):
        read_bytes(path, 99, "a text")


def test_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    assert (read_head(path, 3), read_tail(path, 3)) == (b"012", b"789")
    assert read_head(path, 99) == read_tail(path, 99) == b"0123456789"
    for read in (read_head, read_tail):
        with pytest.raises(FileFault, match="a device"):
            read("/dev/zero", 3)


def test_what_something_else_will_read(tmp_path: Path, wording: Wording) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    check_regular(tmp_path / "a", 10, "weights")
    with wording.raises(FileFault, "10"):
        check_regular(tmp_path / "a", 9, "weights")
    for path, words in (("/dev/zero", "a device"), (tmp_path / "absent", "no such file")):
        with pytest.raises(FileFault, match=words):
            check_regular(path, 9, "weights")
