"""The wheel has one top-level name, and every module and data file of the checkout."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from wheels import build, tracked


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files in the wheel of this checkout."""
    with zipfile.ZipFile(build(tmp_path_factory.mktemp("wheel"))) as archive:
        return set(archive.namelist())


def test_the_wheel_adds_one_top_level_name(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"harness"}


@pytest.mark.parametrize(
    ("folder", "place", "suffixes"),
    [
        ("harness", "harness", {".py", ".typed", ".j2", ".css", ".js", ".bash", ".zsh", ".fish"}),
        ("backends", "harness/backends", {".py"}),
        ("specs", "harness/specs", {".py", ".yaml"}),
    ],
)
def test_the_wheel_holds_every_tracked_file(
    names: set[str], folder: str, place: str, suffixes: set[str]
) -> None:
    files = [Path(name) for name in tracked(folder)]
    assert suffixes <= {file.suffix or file.name for file in files}
    wanted = {f"{place}/{file.relative_to(folder).as_posix()}" for file in files}
    assert sorted(wanted - names) == []
