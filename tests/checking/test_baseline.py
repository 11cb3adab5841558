"""``harness check --baseline``: a run held against an earlier one's records, at once."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import plugin_faulty_cells
import pytest
import warm_commands
from places import SPECS

from harness.checking.report import find_places, markdown
from harness.checking.runner import Report
from harness.language.library import Library
from harness.language.model import ModelCollection
from harness.output import github
from harness.results.cell import Cell, CellResult
from harness.results.findings import Finding
from harness.results.lines import End

SPEC = "lesson6/simple_rnn"
FAULTS = {f"{SPEC} float64": "wrong_shape"}


def check(
    folder: Path, *arguments: str, faults: dict[str, str] | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    command = ["check", "--backend", "faulty-numpy", "--size", "hidden=8", "--check", "values"]
    environment = {**os.environ, **plugin_faulty_cells.variables(faults or {}), **variables}
    return warm_commands.run([*command, *arguments], cwd=folder, env=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the records of a run without faults, and of one that has them."""
    folder = tmp_path_factory.mktemp("baseline")
    assert check(folder, SPEC, "--records", "right.jsonl").returncode == 0
    assert check(folder, SPEC, "--records", "wrong.jsonl", faults=FAULTS).returncode == 1
    return folder


def test_a_new_difference_is_told_and_counts(folder: Path) -> None:
    run = check(folder, SPEC, "--baseline", "right.jsonl", faults=FAULTS)
    assert run.returncode == 1, run.stderr
    assert "since right.jsonl: 1 new difference\n" in run.stdout
    assert f"{SPEC} on faulty-numpy, float64, native: outputs: agree became differ" in run.stdout


def test_what_differed_before_is_no_failure(folder: Path) -> None:
    run = check(folder, SPEC, "--baseline", "wrong.jsonl", faults=FAULTS)
    assert "DIFFER" in run.stdout
    assert "since wrong.jsonl: nothing changed\n" in run.stdout
    assert run.returncode == 0


def test_a_repaired_difference_is_told(folder: Path) -> None:
    run = check(folder, SPEC, "--baseline", "wrong.jsonl")
    assert "since wrong.jsonl: nothing is worse: 1 repaired\n" in run.stdout
    assert run.returncode == 0


def test_what_was_not_asked_for_is_not_missed(folder: Path) -> None:
    run = check(folder, SPEC, "--dtype", "float32", "--baseline", "right.jsonl", "--json")
    content = json.loads(run.stdout)
    assert (run.returncode, content["since"]["changes"]) == (0, [])


def test_what_is_left_out_after_the_first_failure_is_not_missed(folder: Path) -> None:
    run = check(folder, SPEC, "--baseline", "wrong.jsonl", "--fail-fast", faults=FAULTS)
    assert "since wrong.jsonl: nothing changed\n" in run.stdout
    assert "2 cells" not in run.stdout


def test_a_crash_is_of_a_graver_kind(folder: Path) -> None:
    crash = {f"{SPEC} float32": "segfault"}
    run = check(folder, SPEC, "--baseline", "right.jsonl", "--json", faults=crash)
    content = json.loads(run.stdout)
    assert (run.returncode, content["exit_code"]) == (3, 3)
    (change,) = content["since"]["changes"]
    assert (change["kind"], change["dtype"]) == ("verdict-changed", "float32")


def test_a_model_that_was_not_there_is_new(folder: Path) -> None:
    run = check(folder, SPEC, "lesson6/theano_rnn", "--baseline", "right.jsonl")
    assert "since right.jsonl: nothing is worse: 2 new\n" in run.stdout
    assert run.returncode == 0


def test_a_model_that_a_pattern_matched_and_that_is_gone_is_missed(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "models" / "nets"
    folder.mkdir(parents=True)
    shipped = files("harness.specs").joinpath(f"models/{SPEC}.yaml").read_text()
    for name in ("one", "two"):
        own = shipped.replace(f"model: {SPEC}", f"model: nets/{name}")
        (folder / f"{name}.yaml").write_text(own)
    asked = ("nets/*", "--specs", "mine")
    assert check(tmp_path, *asked, "--records", "old.jsonl").returncode == 0
    (folder / "two.yaml").unlink()
    run = check(tmp_path, *asked, "--baseline", "old.jsonl")
    assert "nets/two on faulty-numpy, float64, native: missing in the newer run" in run.stdout
    assert "since old.jsonl: 2 lost\n" in run.stdout
    assert run.returncode == 1
    named = check(tmp_path, "nets/one", "--specs", "mine", "--baseline", "old.jsonl")
    assert "since old.jsonl: nothing changed\n" in named.stdout


def test_the_baseline_may_be_the_file_that_is_appended_to(folder: Path) -> None:
    (folder / "both.jsonl").write_bytes((folder / "right.jsonl").read_bytes())
    run = check(folder, SPEC, "--records", "both.jsonl", "--baseline", "both.jsonl", faults=FAULTS)
    assert run.returncode == 1
    assert "since both.jsonl: 1 new difference" in run.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read records from b.jsonl: no such file"),
        ("", "--baseline b.jsonl has no finished cell"),
        ('{"kind":"head"}\n', "b.jsonl:1: "),
    ],
)
def test_a_baseline_that_is_none_is_told_before_anything_runs(
    content: str | None, words: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "b.jsonl").write_text(content)
    run = check(tmp_path, SPEC, "--baseline", "b.jsonl")
    assert run.returncode == 2
    assert words in run.stderr
    assert "starting" not in run.stderr
    assert "Traceback" not in run.stderr


def test_a_fault_inside_a_shipped_definition_is_shown_at_the_layer_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    text = (SPECS / "models/lesson6/keras_gru.yaml").read_text("utf-8")
    Path("mine.yaml").write_text(text.replace("model: lesson6/keras_gru", "model: mine"), "utf-8")
    specs = ModelCollection(Library())
    specs.add("mine.yaml")
    (line,) = (n for n, words in enumerate(text.splitlines(), 1) if words.startswith("  gru: "))
    location = "forward: first differs at z of layer gru, time step 0 (specs/layers/gru.yaml:20)"
    result = CellResult(Cell("mine", "torch", "cpu", "float32", "native"), location=location)
    result.place, result.wrong_layers = "specs/layers/gru.yaml:20", ("gru",)
    told = github.annotation("t", "m", find_places(result, specs))
    assert told == f"::error file=mine.yaml,line={line},title=t::m"
    # A location may name further layers, as those of wrong gradients; also of an earlier run.
    named = End.of(replace(result, wrong_layers=(), place="", named_layers=("gru",)))
    assert named.layers == ("gru",)
    later = replace(result, wrong_layers=(), place="", named_layers=named.layers)
    told = github.annotation("t", "m", find_places(later, specs))
    assert told == f"::error file=mine.yaml,line={line},title=t::m"
    # Where it goes wrong, who is at fault and what was seen are sentences, not one line.
    result.findings = [Finding("outputs", verdict="differ", faults=["off by 1"])]
    assert "gru.yaml:20). outputs: differ: off by 1." in markdown(Report([result]))
    # Of no layer of the model, it is the model's name.
    result.place, result.wrong_layers = "", ("other",)
    told = github.annotation("t", "m", find_places(result, specs))
    assert told == "::error file=mine.yaml,line=1,title=t::m"


def test_an_attribute_that_differs_is_shown_at_the_layer_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    text = (SPECS / "models/lesson6/stateful_lstm.yaml").read_text("utf-8")
    text = text.replace("model: lesson6/stateful_lstm", "model: mine")
    Path("mine.yaml").write_text(text, "utf-8")
    specs = ModelCollection(Library())
    specs.add("mine.yaml")
    (line,) = (n for n, words in enumerate(text.splitlines(), 1) if words.startswith("  norm: "))
    cell = Cell("mine", "torch", "cpu", "float32", "native")
    result = CellResult(cell, wrong_layers=("norm",), wrong_attribute="epsilon")
    told = github.annotation("t", "m", find_places(result, specs))
    assert told == f"::error file=mine.yaml,line={line},title=t::m"


def test_github_is_told_where_the_variables_are_there(folder: Path) -> None:
    summary = folder / "summary.md"
    summary.write_text("what was there before\n")
    actions = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    run = check(folder, SPEC, "--json", faults=FAULTS, **actions)
    json.loads(run.stdout)  # which stays a program's
    (error,) = (line for line in run.stderr.splitlines() if line.startswith("::"))
    title = "title=lesson6/simple_rnn on faulty-numpy%2C float64%2C native%3A differ::"
    assert error.startswith(f"::error {title}")
    assert "%0Aoutputs: differ: output.hidden_states: expected shape" in error
    text = summary.read_text()
    assert text.startswith("what was there before\n### harness check: 2 cells: 1 differ")
    assert "| lesson6/simple\\_rnn | DIFFER" in text
    assert (
        "differ**: At fault" in text.replace("at fault", "At fault") or ". outputs: differ" in text
    )
    # What was there before is a warning.
    run = check(folder, SPEC, "--baseline", "wrong.jsonl", faults=FAULTS, **actions)
    assert f"::warning {title}" in run.stderr
    run = check(folder, SPEC, "--baseline", "right.jsonl", faults=FAULTS, **actions)
    assert "::error title=since right.jsonl::lesson6/simple_rnn on faulty-numpy" in run.stderr
    # A summary that cannot be written is a line, and not a failure.
    run = check(folder, SPEC, GITHUB_STEP_SUMMARY=str(folder))
    assert run.returncode == 0
    assert "cannot write the summary of the step to" in run.stderr
    assert "::" not in check(folder, SPEC, faults=FAULTS).stderr
