"""Reproducers: there and back bit by bit, and never half written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import DOCS
from wording import Wording

from harness.checking.checks import extremes
from harness.checking.reproducer import (
    GROUPS,
    MATERIALS,
    choose_folder,
    find_first_check,
    load,
    make_pass,
    save,
    write_whole,
)
from harness.checking.request import Request, make_case
from harness.errors import UsageError
from harness.language.model import load_spec
from harness.oracle.case import Case
from harness.results.cell import Cell
from harness.results.findings import Finding
from harness.runtime.paths import KNOWN_DTYPES, PATHS

CELL = Cell("lesson6/stateful_lstm", "numpy", "cpu", "float32", "native")


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(load_spec("lesson6/stateful_lstm"), Request(), own=False)


@pytest.fixture
def folder(case: Case, tmp_path: Path) -> Path:
    return save(tmp_path / "new" / "deep", CELL, case, "gradients")


# --- There and back ---------------------------------------------------------------------------


def test_what_is_saved_comes_back_bit_by_bit(case: Case, folder: Path) -> None:
    assert folder.parts[-3:] == ("lesson6", "stateful_lstm", "numpy-float32-native")
    found = load(folder)
    assert found.cell == CELL
    assert found.training == case.training
    assert found.inference == case.inference
    expected = case.gradients(case.material, "main")
    pairs = [(getattr(found.run.material, g), getattr(case.material, g)) for g in GROUPS]
    pairs.append((found.expected.values, expected.values))
    assert all(wanted for _, wanted in pairs)
    for back, wanted in pairs:
        assert set(back) == set(wanted)
        for name, array in wanted.items():
            assert back[name].dtype == array.dtype
            assert back[name].shape == array.shape
            assert back[name].tobytes() == array.tobytes()
    assert found.expected.noise("float32") == expected.noise("float32")
    assert (found.run.check, found.run.phase, found.run.cotangents) == (
        "gradients",
        "training",
        None,
    )


@pytest.mark.parametrize("check", MATERIALS)
def test_every_check_that_is_one_pass_comes_back(case: Case, tmp_path: Path, check: str) -> None:
    if check in extremes.INDICES:
        case = make_case(load_spec("lesson6/simple_rnn"), Request(), own=False)
    found = load(save(tmp_path, CELL, case, check))
    wanted = make_pass(case, check)
    assert (found.run.check, found.run.phase) == (check, wanted.phase)
    np.testing.assert_equal(vars(found.run.material), vars(wanted.material))
    np.testing.assert_equal(found.run.cotangents, wanted.cotangents)
    np.testing.assert_equal(found.expected.values, dict(wanted.expected(case).values))
    assert (check == "cotangent-gradients") == (found.run.cotangents is not None)


def test_the_first_check_that_differs_and_is_one_pass_is_saved() -> None:
    agrees, known = Finding("loss"), Finding("state", verdict="known-difference")
    training, kinks, corners = (
        Finding(check, verdict="differ") for check in ("training", "kinks", "corners")
    )
    assert find_first_check([agrees, known, training, kinks, corners]) == "kinks"
    assert find_first_check([agrees, known, training]) is None


def test_a_folder_holds_two_files_and_no_pickle(folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} == {"arrays.npz", "program.json"}
    with np.load(folder / "arrays.npz", allow_pickle=False) as archive:
        assert "parameters/lstm.W_i" in archive.files
        assert all(archive[n].dtype.kind in "fi" for n in archive.files)
    json.loads((folder / "program.json").read_text(encoding="utf-8"))


def test_saving_again_replaces(case: Case, folder: Path) -> None:
    np.savez(folder / "arrays.npz", **{"expected/loss": np.zeros(())})  # type: ignore[arg-type]
    assert save(folder.parents[2], CELL, case, "gradients") == folder
    assert load(folder).cell == CELL


def test_names_that_are_alike_have_folders_of_their_own(case: Case, tmp_path: Path) -> None:
    names = [("a/b", "c"), ("a-b", "c"), ("a", "b-c"), ("a/b/c", "c"), ("a_b", "c"), ("b", "a-c")]
    cells = [replace(CELL, spec=spec, backend=backend) for spec, backend in names]
    folders = [save(tmp_path, cell, case, "gradients") for cell in cells]
    assert len(set(folders)) == len(names)
    assert [load(folder).cell for folder in folders] == cells


@pytest.mark.parametrize(
    "page", [DOCS / "tutorial.md", DOCS / "reproducers.md"], ids=lambda p: p.name
)
def test_pages_name_the_folders_that_are_written(page: Path) -> None:
    named = re.findall(r"harness (?:replay|reduce) (failures/[\w/.-]+)", page.read_text("utf-8"))
    assert named
    for folder in named:
        spec, _, last = folder.removeprefix("failures/").rpartition("/")
        backend, dtype, path = last.rsplit("-", 2)
        assert (dtype in KNOWN_DTYPES, path in PATHS) == (True, True)
        cell = replace(CELL, spec=spec, backend=backend, dtype=dtype, path=path)
        assert os.fspath(choose_folder(Path("failures"), cell)) == folder


@pytest.mark.parametrize("name", ["arrays.npz", "program.json"])
def test_files_of_somebody_else_stay(name: str, case: Case, folder: Path, wording: Wording) -> None:
    (folder / name).write_text('{"mine": 1}')
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with wording.raises(UsageError, f"{name} ... JSON"):
        save(folder.parents[2], CELL, case, "gradients")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["arrays.npz", "program.json"])
def test_a_pipe_in_the_place_of_a_file_is_told(
    name: str, case: Case, folder: Path, wording: Wording
) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with wording.raises(UsageError, f"{name}"):
        load(folder)
    with wording.raises(UsageError, f"{name}"):
        save(folder.parents[2], CELL, case, "gradients")


# --- Interrupted and impossible writes --------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(*_: object) -> None:
        assert len(list(tmp_path.iterdir())) == 2  # the new content lies beside the old
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(error)):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_full_disk_is_told_in_words_and_the_old_reproducer_kept(
    case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with wording.raises(UsageError):
        save(folder.parents[2], CELL, case, "gradients")
    assert load(folder).cell == CELL


def test_a_file_in_the_folders_place_is_told(case: Case, tmp_path: Path, wording: Wording) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with wording.raises(UsageError):
        save(tmp_path / "taken", CELL, case, "gradients")


# --- Folders that hold none -------------------------------------------------------------------


def cut(name: str, share: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return damage


def program(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "program.json").write_text(text, encoding="utf-8") and None


def flipped(folder: Path) -> None:
    content = bytearray((folder / "arrays.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / "arrays.npz").write_bytes(content)


def without(key: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "program.json"
        meta = json.loads(path.read_text(encoding="utf-8"))
        del meta[key]
        path.write_text(json.dumps(meta), encoding="utf-8")

    return damage


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "no program": lambda folder: (folder / "program.json").unlink(),
    "no arrays": lambda folder: (folder / "arrays.npz").unlink(),
    "program cut off": cut("program.json", 0.5),
    "arrays cut off": cut("arrays.npz", 0.9),
    "arrays empty": cut("arrays.npz", 0.0),
    "arrays changed": flipped,
    "no JSON": program("hello"),
    "a list": program("[]"),
    "another cell": program('{"cell": {"model": "x"}, "training": 1, "inference": 1}'),
    "no cell": without("cell"),
    "no check": without("check"),
    "no training": without("training"),
    "no noise": without("noise"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_holds_no_reproducer_is_told(folder: Path, damage: str) -> None:
    DAMAGES[damage](folder)
    with pytest.raises(UsageError, match=f"{folder.name} holds no reproducer: .+"):
        load(folder)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, wording: Wording) -> None:
    with wording.raises(UsageError):
        load(tmp_path / "nowhere")
