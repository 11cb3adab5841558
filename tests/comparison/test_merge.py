"""Files of several runs in one: nothing lost, nothing twice, and no two machines in one column."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench_results import REQUEST, result
from click.testing import CliRunner
from record_lines import lines_of
from wording import Wording

import harness
from harness.cli import cli
from harness.results.environment import machine_identity
from harness.results.file import read_records
from harness.results.lines import End
from harness.timing import json_file

SPECS = ("lesson6/simple_rnn", "lesson6/three_char")
Change = Callable[[dict[str, Any]], None]


def run(*words: object) -> Any:
    return CliRunner().invoke(cli, [*map(str, words)])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A check in two shards, of four cells."""
    folder = tmp_path_factory.mktemp("shards")
    paths = [folder / f"{number}.jsonl" for number in (1, 2)]
    for number, path in enumerate(paths, start=1):
        harness.check(SPECS, "numpy", checks="values", records=path, shard=f"{number}/2")
    return paths


def changed(path: Path, target: Path, **kinds: Change) -> Path:
    """A copy of a record file with lines of some kinds changed."""
    lines = []
    for line in lines_of(path):
        kinds.get(line["kind"], lambda _: None)(line)
        lines.append(json.dumps(line))
    target.write_text("\n".join(lines) + "\n")
    return target


def elsewhere(path: Path, target: Path, host: str = "other") -> Path:
    """A copy as another machine had written it."""

    def head(line: dict[str, Any]) -> None:
        line["machine"] |= {"host": host, "id": f"id of {host}"}

    def begin(line: dict[str, Any]) -> None:
        line["signature"] |= {"host": host, "machine": f"id of {host}"}

    return changed(path, target, head=head, begin=begin)


def test_shards_become_the_whole(shards: list[Path], tmp_path: Path, wording: Wording) -> None:
    output = tmp_path / "all.jsonl"
    found = run("merge", *shards, "-o", output)
    assert found.exit_code == 0, found.output
    wording(found.stdout.splitlines(), f"4 ... 2 ... 1 ... {output}: 4 agree ... 2 ... 2")
    records = read_records(output)
    cells = records.ended
    assert len(cells) == len(records.of_kind(End)) == 4
    # A run of all of it finds nothing left to do.
    again = harness.check(SPECS, "numpy", checks="values", records=output, resume=True)
    assert [r.kept for r in again.results] == [True] * 4
    assert run("compare", output, output).exit_code == 0
    page = tmp_path / "page.md"
    assert run("report", output, "-o", page).exit_code == 0
    assert "4 agree" in page.read_text()
    wording.line(run("merge", output, "-o", output).stdout, "4 ... 1 ... 1")


def test_a_missing_shard_is_told(shards: list[Path], tmp_path: Path, wording: Wording) -> None:
    found = run("merge", shards[1], "-o", tmp_path / "all.jsonl")
    assert found.exit_code == 3
    wording(found.stdout.splitlines()[-1], "1 ... 2 ... 1/2; 2")
    told = json.loads(run("merge", shards[1], "-o", tmp_path / "all.jsonl", "--json").stdout)
    assert (told["exit_code"], told["missing"], told["cells"]) == (3, 2, 2)
    wording(read_records(tmp_path / "all.jsonl").stopped, "2 ... 4")
    # A shard that was cut off: its beginnings stay, and are no cells.
    cut = tmp_path / "cut.jsonl"
    text = shards[0].read_text().splitlines(keepends=True)
    cut.write_text("".join(text[:-2]))
    found = run("merge", cut, shards[1], "-o", tmp_path / "all.jsonl")
    wording(found.stdout.splitlines()[-1], "2 ... 2 ... 1")
    assert len(lines_of(tmp_path / "all.jsonl", "begin")) == 4


def test_a_missing_shard_of_one_of_several_runs_is_told(
    shards: list[Path], tmp_path: Path, wording: Wording
) -> None:
    other, output = tmp_path / "other.jsonl", tmp_path / "all.jsonl"
    harness.check("lesson6/keras_gru", "numpy", dtypes="float64", checks="values", records=other)
    found = run("merge", shards[0], other, "-o", output)
    assert found.exit_code == 3
    wording(found.stdout.splitlines()[-1], "1 ... 2 ... 2/2; 2")
    found = run("merge", output, shards[1], "-o", output)
    assert (found.exit_code, found.stdout.splitlines()[-1]) == (0, "2 of 2 shards")


def test_a_file_without_its_head_is_refused(
    shards: list[Path], tmp_path: Path, wording: Wording
) -> None:
    lines = shards[1].read_text().splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_text("".join(lines[1:]))
    found = run("merge", shards[0], tmp_path / "cut.jsonl", "-o", tmp_path / "whole.jsonl")
    assert found.exit_code == 2
    wording.line(found.output, "cut.jsonl:1 ... 'head'")
    assert not (tmp_path / "whole.jsonl").exists()


def test_cells_of_another_device_are_none_of_the_plan(shards: list[Path], tmp_path: Path) -> None:
    def elsewhere(line: dict[str, Any]) -> None:
        line["device"] = "cuda:0"

    kinds = dict.fromkeys(("begin", "result", "end"), elsewhere)
    other = changed(shards[1], tmp_path / "other.jsonl", **kinds)
    found = run("merge", shards[0], other, "-o", tmp_path / "all.jsonl")
    assert found.exit_code == 3
    assert "2 cells missing" in found.stdout


def test_what_contradicts_itself_is_run_again(
    shards: list[Path], tmp_path: Path, wording: Wording
) -> None:
    def differ(line: dict[str, Any]) -> None:
        if line["check"] == "loss":
            line["verdict"] = "differ"

    other, output = changed(shards[0], tmp_path / "o.jsonl", result=differ), tmp_path / "m.jsonl"
    for files in ((shards[0], other), (other, shards[0])):
        run("merge", *files, shards[1], "-o", output)
        words = ("--backend", "numpy", "--check", "values", "--records", output, "--resume")
        found = run("check", *SPECS, *words)
        told = " ".join(found.stderr.split())
        wording.line(told, "2")
        assert "4 agree (2 kept" in found.stdout


def test_what_is_there_twice_is_kept_once_and_told(
    shards: list[Path], tmp_path: Path, wording: Wording
) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    run("merge", *shards, "-o", first)
    found = run("merge", first, shards[0], "-o", second)
    assert found.exit_code == 0
    wording.line(found.stdout, f"{shards[0]}: 2")
    assert second.read_bytes() == first.read_bytes()


def test_contradictions_are_told_and_both_kept(
    shards: list[Path], tmp_path: Path, wording: Wording
) -> None:
    def differ(line: dict[str, Any]) -> None:
        if line["check"] == "loss":
            line["verdict"] = "differ"

    other, output = changed(shards[0], tmp_path / "o.jsonl", result=differ), tmp_path / "m.jsonl"
    found = run("merge", shards[0], other, shards[1], "-o", output)
    assert found.exit_code == 1
    wording.line(found.stdout, f"loss ... agree ... {shards[0]} ... differ ... {other}")
    cells = read_records(output).ended
    assert {cell.backend for cell in cells} == {"numpy", "numpy, copy 2"}
    assert sorted(r.verdict for r in cells.values()) == ["agree"] * 4 + ["differ"] * 2
    # Joining it again adds nothing, and still tells.
    again = run("merge", output, other, "-o", tmp_path / "again.jsonl")
    assert len(read_records(tmp_path / "again.jsonl").ended) == 6
    assert again.exit_code == 1


def test_cells_of_another_run_are_not_replaced(shards: list[Path], tmp_path: Path) -> None:
    first, second = shards
    output = tmp_path / "all.jsonl"
    other = elsewhere(second, output).read_bytes()
    for content, words in (
        (other, "it has 2 cells that none of the files has; remove it, choose another --output"),
        (
            other.replace(b'"seed": 0', b'"seed": 1'),
            "from runs with different options (seed 0 and",
        ),
        (other.replace(b'"backend":', b'"backed":'), "all.jsonl:2: "),
    ):
        output.write_bytes(content)
        found = run("merge", first, second, "-o", output)
        assert (found.exit_code, output.read_bytes()) == (2, content), found.exception
        assert f"cannot replace {output}: " in found.output
        assert words in found.output
    # What loses nothing: an input, and the same files again, of which one has grown.
    output.write_bytes(first.read_bytes())
    assert run("merge", output, second, "-o", output).exit_code == 0
    assert run("merge", first, "-o", tmp_path / "part.jsonl").exit_code == 3
    for place in (output, tmp_path / "part.jsonl"):
        assert run("merge", first, second, "-o", place).exit_code == 0
        assert len(read_records(place).ended) == 4


def test_machines_stay_apart(shards: list[Path], tmp_path: Path, wording: Wording) -> None:
    there, output = elsewhere(shards[0], tmp_path / "there.jsonl"), tmp_path / "all.jsonl"
    found = run("merge", *shards, there, "-o", output)
    assert found.exit_code == 0
    wording.line(found.stdout, "6 ... 3 ... 2")
    cells = read_records(output).ended
    counts = {name: sum(c.backend == name for c in cells) for name in {c.backend for c in cells}}
    mine = next(name for name in counts if name != "numpy on other")
    assert counts == {mine: 4, "numpy on other": 2}
    page = tmp_path / "page.md"
    assert run("report", output, "-o", page).exit_code == 0
    assert "numpy on other" in page.read_text()
    # A resumed run takes what this machine has run, whichever stands last.
    again = harness.check(SPECS, "numpy", checks="values", records=output, resume=True)
    assert all(r.kept and r.signature["machine"] == machine_identity() for r in again.results)
    # And a comparison holds each machine against itself.
    found = run("compare", output, output)
    assert (found.exit_code, "nothing changed" in found.stdout) == (0, True), found.stdout


def test_machines_of_one_name_are_told_by_their_identity(
    shards: list[Path], tmp_path: Path
) -> None:
    here = lines_of(shards[0], "head")[0]["machine"]["host"]

    def begin(line: dict[str, Any]) -> None:
        line["signature"] |= {"machine": "another"}

    other, output = changed(shards[0], tmp_path / "o.jsonl", begin=begin), tmp_path / "m.jsonl"
    run("merge", shards[0], other, "-o", output)
    names = {cell.backend for cell in read_records(output).ended}
    assert names == {f"numpy on {here} {machine_identity()[:6]}", f"numpy on {here} anothe"}


def test_versions_stay_apart(shards: list[Path], tmp_path: Path) -> None:
    def result(line: dict[str, Any]) -> None:
        line["backend_version"] = "numpy 3.0"

    newer, output = changed(shards[0], tmp_path / "n.jsonl", result=result), tmp_path / "m.jsonl"
    assert run("merge", shards[0], newer, "-o", output).exit_code == 3
    names = {cell.backend for cell in read_records(output).ended}
    assert len(names) == 2
    assert "numpy (numpy 3.0)" in names


def test_other_options_and_other_kinds_are_refused(
    shards: list[Path], tmp_path: Path, wording: Wording
) -> None:
    output = tmp_path / "m.jsonl"
    other = tmp_path / "other.jsonl"
    harness.check(SPECS[0], "numpy", dtypes="float64", checks="loss", records=other)
    found = run("merge", shards[0], other, "-o", output)
    assert found.exit_code == 2
    wording.line(" ".join(found.stderr.split()), '["values"] ... ["loss"]')
    bench = tmp_path / "bench.json"
    json_file.write(bench, json_file.document(REQUEST, [result()]))
    found = run("merge", shards[0], bench, "-o", output)
    assert found.exit_code == 2
    wording(" ".join(found.stderr.split()))
    text = tmp_path / "a.txt"
    text.write_text("words")
    for words in ((shards[0], text), (tmp_path / "none", text)):
        assert run("merge", *words, "-o", output).exit_code == 2
    found = run("merge", shards[0], "-o", text)
    assert found.exit_code == 2
    assert text.read_text() == "words"
    assert not output.exists()


def test_shards_on_the_command_line(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "harness"
    words = ["check", SPECS[0], "--backend", "numpy", "--check", "loss", "--shard", "2/2"]
    done = subprocess.run([program, *words], capture_output=True, text=True, check=True)
    assert "shard 2/2: 1 of 2 cells" in done.stderr
    words[-1] = "3/2"
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--shard takes NUMBER/COUNT" in done.stderr


def test_two_models_of_one_name_are_not_taken_for_one(
    shards: list[Path], tmp_path: Path, wording: Wording
) -> None:
    def other_spec(line: dict[str, Any]) -> None:
        line["signature"]["spec"] = "of other equations"

    other = changed(shards[0], tmp_path / "other.jsonl", begin=other_spec)
    output = tmp_path / "all.jsonl"
    found = run("merge", *shards, other, "-o", output)
    assert found.exit_code == 1
    spec = "lesson6/simple_rnn"
    wording.line(found.stdout, f"{spec} ... {shards[0]}, {other} ... 2")
    assert "6 cells from 3 files" in found.stdout
    assert len(read_records(output).ended) == 6

    def unsaid(line: dict[str, Any]) -> None:
        del line["signature"]["spec"]

    older = changed(shards[0], tmp_path / "older.jsonl", begin=unsaid)
    found = run("merge", *shards, older, "-o", tmp_path / "others.jsonl")
    assert (found.exit_code, "4 cells from 3 files" in found.stdout) == (0, True)
