"""Result files of an early version are read, and commands print of them what they printed then."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from places import TESTS

from harness.checking import history
from harness.checking.request import Request

FOLDER = TESTS / "golden" / "results"
_SPEC = importlib.util.spec_from_file_location("golden_results", FOLDER / "make.py")
assert _SPEC is not None
assert _SPEC.loader is not None
make = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path_factory.mktemp("golden") / "results"))


@pytest.mark.parametrize("name", make.COMMANDS)
def test_a_command_prints_the_same(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    found, expected = make.output(name, folder), (make.OUTPUTS / name).read_text()
    if name == "merged-speeds.json":  # the order of fields is free
        assert json.loads(found) == json.loads(expected)
    else:
        assert found == expected


def test_the_checksums_of_all_cells_are_right(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*.jsonl"):
        shutil.copy(path, tmp_path)
    request = Request(specs=("m0",), checks=("values", "training"))
    cells, passed_over = history.read_history(tmp_path, request)
    assert not passed_over
    assert len(cells) == 18
