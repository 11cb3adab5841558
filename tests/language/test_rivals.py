"""Two files with one name: an error with both places, at every entrance; one file is one spec."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import SPECS
from suite_runs import specs, suite
from wording import Wording

import harness
from harness.checking.engine import Engine
from harness.checking.explain import explain
from harness.checking.request import Request
from harness.errors import SpecError, UsageError
from harness.language.library import find_declarations
from harness.language.model import load_spec, load_specs, notes_on
from harness.timing.request import BenchRequest, groups_of

SHIPPED = SPECS
MODEL = (SHIPPED / "models/lesson6/simple_rnn.yaml").read_text()
DENSE = (SHIPPED / "layers/dense.yaml").read_text()
HARNESS = Path(sys.executable).with_name("harness")


def model(path: Path, name: str = "mine", comment: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(comment + MODEL.replace("model: lesson6/simple_rnn", f"model: {name}"))
    return path


def entrances(specs: tuple[str, ...], folders: tuple[Path, ...] = ()) -> list[tuple[str, object]]:
    """Every way in that takes several specs."""
    request = Request(specs=specs, backends=("numpy",), folders=folders)
    bench = BenchRequest(specs=specs, backends=("numpy",), folders=folders)
    return [
        ("engine", lambda: Engine(request)),
        ("check", lambda: harness.check(specs, "numpy", folders=folders)),
        ("bench", lambda: groups_of(bench)),
        ("load_specs", lambda: load_specs(specs, folders)),
    ]


def refused(specs: tuple[str, ...], folders: tuple[Path, ...] = ()) -> str:
    """What all entrances say."""
    said = set()
    for _, enter in entrances(specs, folders):
        with pytest.raises(SpecError) as caught:
            enter()  # type: ignore[operator]
        said.add(str(caught.value))
    assert len(said) == 1
    return said.pop()


def test_two_files_of_one_name_are_an_error_with_both_places(
    tmp_path: Path, wording: Wording
) -> None:
    one, other = model(tmp_path / "one.yaml"), model(tmp_path / "other.yaml", comment="\n# new\n")
    said = refused((str(one), str(other)))
    wording.line(said, f"{other}:3:8 ... 'mine' ... {one}:1:8")


@pytest.mark.parametrize("alone", [True, False])
def test_a_file_does_not_take_the_name_of_a_model_that_ships(alone: bool, tmp_path: Path) -> None:
    path = model(tmp_path / "own.yaml", "lesson6/simple_rnn")
    specs = (str(path),) if alone else ("lesson6/simple_rnn", str(path))
    said = refused(specs)
    assert f"{path}:1:8: " in said
    assert "specs/models/lesson6/simple_rnn.yaml:1:8" in said


def test_nor_does_a_file_in_a_folder(tmp_path: Path) -> None:
    path = model(tmp_path / "models/lesson6/simple_rnn.yaml", "lesson6/simple_rnn")
    said = refused(("lesson6/simple_rnn",), (tmp_path,))
    assert f"{path}:1:8: " in said
    assert "specs/models/lesson6/simple_rnn.yaml:1:8" in said


def test_a_file_does_not_take_the_name_of_one_in_a_folder(tmp_path: Path) -> None:
    kept = model(tmp_path / "folder/models/mine.yaml")
    path = model(tmp_path / "mine.yaml")
    assert f"{kept}:1:8" in refused((str(path),), (tmp_path / "folder",))


@pytest.mark.parametrize("kind", ["model", "layer"])
def test_two_folders_do_not_have_one_name(kind: str, tmp_path: Path) -> None:
    places = []
    for name in ("a", "b"):
        if kind == "model":
            places.append(model(tmp_path / name / "models/mine.yaml"))
        else:
            model(tmp_path / "a/models/mine.yaml")
            places.append(tmp_path / name / "layers/dense.yaml")
            places[-1].parent.mkdir(parents=True, exist_ok=True)
            places[-1].write_text(DENSE)
    said = refused(("mine",), (tmp_path / "a", tmp_path / "b"))
    assert all(f"{place}:" in said for place in places)


@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_two_files_of_one_folder_do_not_have_one_name(quote: str, tmp_path: Path) -> None:
    right = model(tmp_path / "models/mine.yaml")
    wrong = model(tmp_path / "models/sub/copy.yaml", f"{quote}mine{quote}")
    said = refused(("mine",), (tmp_path,))
    assert f"{right}:1:8" in said
    assert f"{wrong}:1:{8 + len(quote)}" in said


def test_a_wrong_file_beside_the_one_that_is_wanted_does_no_harm(tmp_path: Path) -> None:
    model(tmp_path / "models/mine.yaml")
    (tmp_path / "models/broken.yaml").write_bytes(b"\xff{{{ model: mine")
    os.mkfifo(tmp_path / "models/pipe.yaml")
    assert load_spec("mine", (tmp_path,)).name == "mine"


def test_one_file_is_one_spec_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = model(tmp_path / "folder/models/mine.yaml")
    (tmp_path / "link.yaml").symlink_to(path)
    (tmp_path / "hard.yaml").hardlink_to(path)
    (tmp_path / "way").symlink_to(tmp_path / "folder")
    spellings = (
        "mine",
        "folder/models/mine.yaml",
        "./folder/models/mine.yaml",
        str(path),
        "folder/../folder/models/mine.yaml",
        "link.yaml",
        "hard.yaml",
        "way/models/mine.yaml",
    )
    folders = (tmp_path / "folder", Path("folder"), tmp_path / "way")
    assert [spec.name for spec in load_specs(spellings, folders)] == ["mine"]
    with Engine(Request(specs=spellings, backends=("numpy",), folders=folders)) as engine:
        assert len(engine.cells()) == 2


def test_a_model_that_ships_may_be_named_by_its_path() -> None:
    path = str(SHIPPED / "models/lesson6/simple_rnn.yaml")
    specs = load_specs(("lesson6/simple_rnn", path), (SHIPPED,))
    assert [spec.name for spec in specs] == ["lesson6/simple_rnn"]


def test_a_layer_in_place_of_one_that_ships_is_told(tmp_path: Path, wording: Wording) -> None:
    path = tmp_path / "layers/dense.yaml"
    path.parent.mkdir()
    path.write_text(DENSE)
    spec = load_spec("lesson6/simple_rnn", (tmp_path,))
    (told,) = notes_on([spec])
    wording.line(told, f"layer 'dense' ... {path}")
    assert "specs/layers/dense.yaml:" in told
    assert not notes_on([load_spec("lesson6/simple_rnn")])
    quick = ("check", "lesson6/simple_rnn", "--backend", "numpy", "--check", "values")
    run = subprocess.run([HARNESS, *quick, "--specs", tmp_path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count(told) == 1


@pytest.mark.parametrize("command", ["check", "bench"])
def test_the_command_line_ends_with_exit_code_2(command: str, tmp_path: Path) -> None:
    one, other = model(tmp_path / "one.yaml"), model(tmp_path / "other.yaml")
    run = subprocess.run(
        [HARNESS, command, one, other, "--backend", "numpy"], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert f"{one}:1:8" in run.stderr
    assert f"{other}:1:8" in run.stderr


@pytest.mark.parametrize("command", ["train", "explain", "export", "generate", "import"])
def test_commands_of_one_spec_do_not_take_a_file_that_hides_a_model(
    command: str, tmp_path: Path
) -> None:
    path = model(tmp_path / "own.yaml", "lesson6/simple_rnn")
    given = {
        "train": ["--backend", "numpy"],
        "explain": [],
        "export": ["--weights", "w", "--to", "torch"],
        "generate": ["--backend", "numpy", "--weights", "w", "--prompt", "a"],
        "import": ["f", "--from", "torch", "--weights", "w"],
    }
    run = subprocess.run([HARNESS, command, path, *given[command]], capture_output=True, text=True)
    assert run.returncode == 2
    assert "specs/models/lesson6/simple_rnn.yaml:1:8" in run.stderr


def test_the_suite_refuses_two_files_of_one_name(tmp_path: Path) -> None:
    one, other = model(tmp_path / "one.yaml"), model(tmp_path / "other.yaml")
    run = suite(tmp_path, "--backend", "numpy", *specs(str(one), str(other)))
    assert run.returncode == 4, run.stdout
    assert f"{one}:1:8" in run.stderr
    assert f"{other}:1:8" in run.stderr


def test_names_are_found_without_parsing(tmp_path: Path) -> None:
    texts = {"a": "model: x  # first", "b": "# model: y\n\nmodel:   'z'\n", "c": "  model: w\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    found = find_declarations("model", [tmp_path / name for name in texts])
    assert {n: [(p.name, at.line, at.column) for p, at in f] for n, f in found.items()} == {
        "x": [("a", 1, 8)],
        "z": [("b", 3, 11)],
    }


@pytest.mark.parametrize("room", ["", "layers"])
def test_a_file_where_none_is_looked_for_is_named(
    tmp_path: Path, room: str, wording: Wording
) -> None:
    path = model(tmp_path / room / "mine.yaml")
    with pytest.raises(UsageError) as caught:
        load_spec("mine", (tmp_path,))
    wording.line(caught.value, f"{path} ... models/mine.yaml")
    if not room:  # of a folder of layers a definition of that name is one
        with pytest.raises(UsageError) as caught:
            explain("mine", (tmp_path,), {}, ())
        wording.line(caught.value, f"{path} ... models/mine.yaml")


@pytest.mark.parametrize("room", ["", "models"])
def test_a_file_beside_a_model_that_asks_for_it_is_named(
    tmp_path: Path, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, file, text, shipped, own in (
        ("asking", "layers/own.yaml", "layer: own\n", "layer: dense", "layer: own"),
        ("other", "losses/my_loss.yaml", "loss: my_loss\n", "sparse_cross_entropy(", "my_loss("),
    ):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(text)
        path = model(tmp_path / room / f"{name}.yaml")
        path.write_text(path.read_text().replace(shipped, own))
        with pytest.raises(SpecError, match=rf"to read .*{file}, add --specs {tmp_path}"):
            load_spec(str(path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=r"; to read layers/own.yaml, add --specs \. "):
        load_spec(str(Path(room) / "asking.yaml"))
