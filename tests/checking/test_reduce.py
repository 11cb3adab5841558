"""A reproducer made as small as it stays wrong: in a new folder, whatever the old one holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from damage import flips, mutations
from test_mutants import BACKENDS, MUTANTS, installed
from wording import Wording

from harness.checking.reduction import Segments, resize
from harness.checking.replay import Search, measure
from harness.checking.reproducer import load, save
from harness.checking.request import Request, make_case
from harness.cli import cli
from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.language.program_checks import check_program
from harness.results.cell import Cell


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    with installed():
        yield


def bundle(name: str, folder: Path, check: str = "") -> Path:
    """The reproducer of a planted fault."""
    mutant = MUTANTS[name]
    case = make_case(load_spec(mutant.spec), Request(), own=False)
    cell = Cell(mutant.spec, BACKENDS[0], name, mutant.dtypes[0], "native")
    return save(folder, cell, case, check or mutant.check)


def run(*arguments: str | Path) -> tuple[int, str]:
    found = CliRunner().invoke(cli, [str(one) for one in arguments])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, found.output


def sizes(shown: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+) \d+ -> (\w+)", shown))


@pytest.mark.parametrize(
    ("name", "left"),
    [("gradient-missing", "out"), ("matmul-in-bfloat16", "rnn"), ("target-off-by-one", "no layer")],
)
def test_what_is_left_is_one_layer_at_sizes_of_one(name: str, left: str, tmp_path: Path) -> None:
    folder = bundle(name, tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, shown = run("reduce", folder, "-o", tmp_path / "small")
    assert code == 0, shown
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    if left != "no layer":
        assert f"layers left: {left} (" in shown
    assert set(sizes(shown).values()) <= {"1", "2", "3", "removed"}
    small = load(tmp_path / "small")
    assert measure(small) < measure(load(folder))
    assert run("replay", tmp_path / "small")[0] == 1
    # And it is that fault: without it all agrees.
    assert run("replay", tmp_path / "small", "--backend", "numpy")[0] == 0


def test_a_time_step_that_is_needed_stays(tmp_path: Path) -> None:
    code, shown = run("reduce", bundle("first-step-for-last", tmp_path), "-o", tmp_path / "new")
    assert code == 0, shown
    assert sizes(shown)["time"] == "2"
    assert sizes(shown)["batch"] == "1"


def test_the_new_folder_stands_beside_the_old_one(tmp_path: Path, wording: Wording) -> None:
    folder = bundle("gradient-missing", tmp_path)
    code, shown = run("reduce", folder, "--json")
    assert code == 0, shown
    content = json.loads(shown.splitlines()[-1])
    assert content["folder"] == str(folder.with_name(f"{folder.name}-reduced"))
    assert load(Path(content["folder"])).cell.spec == content["spec"]
    assert content["sizes"]["after"]["batch"] < content["sizes"]["before"]["batch"]
    assert {*content["layers"]["after"]} < {*content["layers"]["before"]}
    code, shown = run("reduce", folder)
    assert code == 2
    wording.line(shown, "--output")


def test_the_folder_that_one_stands_in_has_a_name_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    inner = tmp_path / "mine" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "mine-reduced").mkdir()
    for place, word in ((inner.parent, "."), (inner, "..")):
        monkeypatch.chdir(place)
        code, shown = run("reduce", Path(word))
        assert code == 2
        assert "mine-reduced already exists" in shown
    (tmp_path / "mine-reduced").rmdir()
    code, shown = run("reduce", Path(".."))
    assert code == 2
    assert "holds no reproducer" in shown
    code, shown = run("reduce", Path("/"))
    assert code == 2
    wording.line(shown, "--output")


@pytest.mark.parametrize("what", ["the old folder", "a file", "a link to nothing"])
def test_nothing_is_written_over(what: str, tmp_path: Path) -> None:
    folder = bundle("gradient-missing", tmp_path)
    target = folder if what == "the old folder" else tmp_path / "there"
    if what == "a file":
        target.write_text("mine")
    elif what == "a link to nothing":
        target.symlink_to(tmp_path / "nowhere")
    code, shown = run("reduce", folder, "--output", target)
    assert code == 2
    assert "already exists" in shown


def test_what_agrees_is_not_reduced(tmp_path: Path, wording: Wording) -> None:
    code, shown = run("reduce", bundle("gradient-missing", tmp_path), "--backend", "numpy")
    assert code == 2
    wording.line(shown, "agrees ... numpy")
    folder = save(
        tmp_path / "fine",
        Cell("lesson6/simple_rnn", "numpy", "cpu", "float32", "native"),
        make_case(load_spec("lesson6/simple_rnn"), Request(), own=False),
        "outputs",
    )
    code, shown = run("reduce", folder)
    assert code == 2
    wording.line(shown, "agrees ... numpy")
    assert not folder.with_name(f"{folder.name}-reduced").exists()


def test_a_folder_that_holds_none_is_told(tmp_path: Path) -> None:
    code, shown = run("reduce", tmp_path)
    assert code == 2
    assert "holds no reproducer" in shown


# --- Strangers' folders -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_whatever_a_stranger_wrote_is_reduced_or_told(seed: int, tmp_path: Path) -> None:
    folder = bundle("gradient-missing", tmp_path)
    meta = json.loads((folder / "program.json").read_text())
    for number, bad in enumerate(mutations(meta, 12, seed)):
        (folder / "program.json").write_text(json.dumps(bad))
        code, shown = run(
            "reduce", folder, "-o", tmp_path / f"out-{number}", "--search-timeout", "5"
        )
        assert code in (0, 2, 3), shown


def test_damaged_bytes_are_told(tmp_path: Path) -> None:
    folder = bundle("gradient-missing", tmp_path)
    content = (folder / "arrays.npz").read_bytes()
    for number, bad in enumerate(flips(content, 6)):
        (folder / "arrays.npz").write_bytes(bad)
        code, shown = run(
            "reduce", folder, "-o", tmp_path / f"out-{number}", "--search-timeout", "5"
        )
        assert code in (0, 2, 3), shown


# --- Parts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", lesson6())
def test_every_part_of_a_program_is_one(name: str, tmp_path: Path) -> None:
    case = make_case(load_spec(name), Request(), own=False)
    cell = Cell(name, "numpy", "cpu", "float64", "native")
    whole = load(save(tmp_path, cell, case, "outputs"))
    segments = Segments(whole)
    made = [segments.extract(n, n + 1) for n in range(len(whole.program.nodes))]
    parts = [part for part in made if part is not None]
    assert len(parts) >= len(whole.program.calls)
    for part in parts:
        check_program(part.training)
        if part.program.nodes[0].op != "call":
            continue  # a max has no gradient of its own, an extent no size that an array decides
        values = part.run_oracle().values
        assert any(n.startswith("output.") for n in values)
        assert all(np.isfinite(array).all() for array in values.values())


def test_sizes_are_cut_from_either_end(tmp_path: Path) -> None:
    case = make_case(load_spec("lesson6/simple_rnn"), Request(), own=False)
    cell = Cell("lesson6/simple_rnn", "numpy", "cpu", "float64", "native")
    whole = load(save(tmp_path, cell, case, "outputs"))
    for first in (True, False):
        small = resize(whole, "batch", 1, first=first)
        assert small is not None
        row = slice(0, 1) if first else slice(-1, None)
        wanted = whole.run.material.inputs["chars"][row]
        np.testing.assert_array_equal(small.run.material.inputs["chars"], wanted)
    assert resize(whole, "batch", 100, first=True) is None
    narrow = resize(whole, "vocab", 2, first=True)
    assert narrow is not None
    assert narrow.run.material.inputs["chars"].max() < 2


def test_a_search_tells_where_it_is_and_ends_in_its_time(tmp_path: Path) -> None:
    folder = bundle("gradient-missing", tmp_path)
    found = CliRunner().invoke(
        cli, ["reduce", str(folder), "-o", str(tmp_path / "new"), "--search-timeout", "0.001"]
    )
    assert found.exit_code == 0, found.output
    assert "; the time limit was reached" in found.stdout
    assert "running gradients of" in found.stderr
    assert "looking for a smaller failure (at most 0.001 s)" in found.stderr


def test_a_failure_is_reduced_in_the_environment_that_is_named(
    tmp_path: Path, wording: Wording
) -> None:
    folder = bundle("gradient-missing", tmp_path)
    name = load(folder).cell.backend
    for option, value in (("--python", "/nowhere/python"), ("--env", "A=1")):
        other = f"torch={value}" if option == "--python" else f"torch:{value}"
        code, shown = run("reduce", folder, "-o", tmp_path / "new", option, other)
        assert code == 2
        wording.line(shown, f"{option} ... 'torch'")
    code, shown = run("reduce", folder, "-o", tmp_path / "new", "--python", "/nowhere/python")
    assert code == 3
    assert f"{name}: " in shown
    assert "/nowhere/python" in shown


def test_a_search_ends_when_its_time_is_up(tmp_path: Path) -> None:
    case = make_case(load_spec("lesson6/simple_rnn"), Request(), own=False)
    cell = Cell("lesson6/simple_rnn", "numpy", "cpu", "float64", "native")
    whole = load(save(tmp_path, cell, case, "outputs"))
    search = Search(lambda failure: True, 0.0)
    assert search.smallest(whole) is whole
    assert search.tried == 0
