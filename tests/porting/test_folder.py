"""The folder of a port: it is complete or missing, also after Ctrl-C."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.porting.readme import MARK, README, check_folder, write_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir(mode=0o700)
    for name in ("net.yaml", "net.map"):
        (folder / name).write_text(name)
    (folder / README).write_text(f"{MARK}\n# net\n")
    return folder


@pytest.mark.parametrize("name", ["new", "empty", "inner/new", "link"])
def test_a_folder_has_all_files(source: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    folder = tmp_path / name
    assert write_folder(source, folder) == [README, "net.map", "net.yaml"]
    assert {path.name for path in folder.iterdir()} == {README, "net.map", "net.yaml"}
    assert folder.stat().st_mode & 0o055 or folder.is_symlink()
    assert not list(tmp_path.rglob(".*"))


def test_an_earlier_port_is_replaced_and_other_files_stay(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "port"
    write_folder(source, folder)
    (folder / "notes.txt").write_text("mine")
    (source / "net.yaml").write_text("newer")
    write_folder(source, folder)
    assert (folder / "net.yaml").read_text() == "newer"
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("last", ["net.yaml", "net.map", README])
def test_an_interrupted_port_leaves_no_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    copy = shutil.copyfile

    def interrupted(one: Path, other: Path) -> None:
        if one.name == last:
            raise KeyboardInterrupt
        copy(one, other)

    monkeypatch.setattr(shutil, "copyfile", interrupted)
    folder = tmp_path / "port"
    with pytest.raises(KeyboardInterrupt):
        write_folder(source, folder)
    check_folder(folder, force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_place_that_cannot_be_written_is_told(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file"):
        write_folder(source, tmp_path / "file" / "port")
