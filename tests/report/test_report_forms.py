"""Reports in each form: what they say of runs of every kind, and the places that they stand in."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import report_files
from click.testing import CliRunner
from jinja2 import TemplateNotFound
from report_pages import made, markdown, page
from wording import Wording

from harness.checking.request import Request
from harness.commands import cli
from harness.report import page as page_module
from harness.report import svg_pictures

CHECK = ["check", "lesson6/first_rnn", "--backend", "numpy", "--check", "values"]
NO_NUMBERS = dict.fromkeys(("error", "yardstick", "ratio", "tolerance", "worst"))


def judged(files: Path, place: Path, *verdicts: str) -> Path:
    """The records with a verdict for each of so many cells, one after the other, and no others."""
    kept: list[dict[str, Any]] = []
    cells: list[tuple[str, ...]] = []
    for text in (files / "run.jsonl").read_text().splitlines():
        line = json.loads(text)
        if line["kind"] not in ("begin", "result", "end"):
            kept += [{**line, "planned": 0}] if line["kind"] == "head" else []
            continue
        cell = tuple(line[name] for name in ("spec", "backend", "device", "dtype", "path"))
        cells += [cell] if cell not in cells else []
        number = cells.index(cell)
        if number < len(verdicts):
            if "verdict" in line:
                line["verdict"] = verdicts[number]
            if line["kind"] == "result" and verdicts[number] in ("unsupported", "not-applicable"):
                line |= NO_NUMBERS
            kept.append(line)
    place.write_text("".join(json.dumps(line) + "\n" for line in kept))
    return place


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        (["agree"] * 4, "✓ All 4 cells agree"),
        (["agree"], "✓ It agrees"),
        (["known-difference"], "✓ It has a known difference"),
        (["known-difference"] * 2, "✓ All 2 cells have known differences"),
        (["agree", "known-difference"], "✓ All 2 cells agree, or have known differences"),
        (["unsupported"] * 4, "⚠ Nothing was compared in 4 cells"),
        (["not-applicable"], "⚠ Nothing was compared in 1 cell"),
        (
            ["agree", "agree", "unsupported"],
            "✓ 2 cells agree, and in 1 other nothing was compared",
        ),
        (
            ["agree", "unsupported", "not-applicable"],
            "✓ 1 cell agrees, and in 2 others nothing was compared",
        ),
    ],
)
def test_a_headline_says_of_how_many_cells_something_is_known(
    verdicts: list[str], sentence: str, files: Path, tmp_path: Path
) -> None:
    text = markdown(tmp_path, judged(files, tmp_path / "run.jsonl", *verdicts))
    assert f"## {sentence}\n" in text


def test_one_cell_that_ended_before_a_stop_is_one_cell(
    files: Path, tmp_path: Path, wording: Wording
) -> None:
    cut = judged(files, tmp_path / "run.jsonl", "agree")
    report_files.changed(cut, cut, {"planned": 7}, kind="head")
    wording.line(markdown(tmp_path, cut), "## ⚠ 1 ... agrees")


def test_tables_of_several_devices_are_told_apart(files: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.jsonl"
    other = report_files.changed(files / "run.jsonl", tmp_path / "other.jsonl", {}, kind="head")
    for kind in ("begin", "result", "end"):
        report_files.changed(other, other, {"device": "cuda:0"}, kind=kind)
    both.write_text((files / "run.jsonl").read_text() + other.read_text())
    titles = [row for row in markdown(tmp_path, both).splitlines() if row.startswith("**Digits")]
    assert len(titles) == len(set(titles)) > 1
    assert any("native on cuda:0" in title for title in titles)


def test_trainings_stand_in_markdown_too(files: Path, tmp_path: Path, wording: Wording) -> None:
    text = markdown(tmp_path, files / "w.safetensors")
    assert "## ✓ 1 training\n" in text
    wording.line(text, "loss")
    assert "w.safetensors" in text


def test_what_is_not_to_be_relied_on_says_so_in_every_form(
    files: Path, tmp_path: Path, wording: Wording
) -> None:
    content = json.loads((files / "bench.json").read_text())
    for benchmark in content["benchmarks"]:
        benchmark["extra_info"]["doubts"] = ["the machine had other work"]
    doubted = tmp_path / "doubted.json"
    doubted.write_text(json.dumps(content))
    text = markdown(tmp_path, doubted)
    row = next(row for row in text.splitlines() if row.startswith("⚠"))
    wording(row)
    assert row.count(" on ") == len(content["benchmarks"]), "one line for all that have it"
    assert f"<li>{row[2:]}</li>".replace("\\", "") in page(tmp_path, doubted)


def test_each_of_several_sizes_has_its_speed(files: Path, tmp_path: Path) -> None:
    content = json.loads((files / "bench.json").read_text())
    smaller = json.loads(json.dumps(content["benchmarks"]))
    for number, benchmarks in ((512, content["benchmarks"]), (8, smaller)):
        for benchmark in benchmarks:
            benchmark["params"] |= {"hidden": number, "vocab": 5}
            for name in ("name", "fullname", "group"):
                benchmark[name] = f"{benchmark[name][:-1]}-hidden{number}]"
    for benchmark in smaller:
        rate = benchmark["extra_info"]["rate"]
        rate |= {name: rate[name] / 8 for name in ("median", "q1", "q3")}
    content["benchmarks"] += smaller
    several = tmp_path / "several.json"
    several.write_text(json.dumps(content))
    text, shown = markdown(tmp_path, several), page(tmp_path, several)
    for title, rate in (("hidden 512", "512"), ("hidden 8", "64.0")):
        assert re.search(rf"^\*\*[a-z]+, batch \d+, {title}, thousand", text, re.MULTILINE), text
        assert f" {rate} |" in text
        assert f", {title}</h3>" in shown
        assert f"<td>{rate} k (" in shown
    assert "vocab" not in text, "what all share is not said again"


def test_cells_that_are_all_refused_make_no_empty_table(files: Path, tmp_path: Path) -> None:
    content = json.loads((files / "bench.json").read_text())
    content["benchmarks"] = []
    (tmp_path / "refused.json").write_text(json.dumps(content))
    text = markdown(tmp_path, tmp_path / "refused.json")
    assert "## ⚠ 0 speeds, 1 refused" in text
    assert "thousand  per second" not in text
    assert "| system |" not in text
    assert "⊘ " in text


@pytest.mark.parametrize("started", ["\x1b[31m2020", "\x00", "\ud800", "\u202e2020", "]]>&<"])
def test_junit_is_xml_whatever_a_record_says(started: str, files: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    report_files.changed(files / "run.jsonl", bad, {"started": started}, kind="head")
    report_files.changed(bad, bad, {"detail": started}, verdict="differ")
    assert made(bad, "-o", tmp_path / "out.xml").exit_code == 0
    text = (tmp_path / "out.xml").read_text()
    root = ElementTree.fromstring(text.encode())
    assert "\u202e" not in text
    escaped = started.encode("unicode_escape").decode()
    assert {suite.get("timestamp") for suite in root} == {escaped}
    assert {found.get("message") for found in root.iter("failure")} == {escaped}


def test_junit_of_a_run_that_was_stopped_is_not_green(
    files: Path, tmp_path: Path, wording: Wording
) -> None:
    cut = judged(files, tmp_path / "run.jsonl", "agree")
    assert made(cut, "-o", tmp_path / "whole.xml").exit_code == 0
    assert "<error" not in (tmp_path / "whole.xml").read_text()
    report_files.changed(cut, cut, {"planned": 7}, kind="head")
    assert made(cut, "-o", tmp_path / "cut.xml").exit_code == 0
    (error,) = ElementTree.parse(tmp_path / "cut.xml").iter("error")
    wording(error.get("message"), "0 ... 7")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--html", "x.md"], "--html x.md ... .md ... --markdown"),
        (["--markdown", "x.html"], "--markdown x.html ... .html ... --html"),
        (["--junit", "x.HTM"], "--junit x.HTM ... .HTM ... --html"),
        (["--html", "x", "--markdown", "./x"], "--html ... --markdown"),
        (["--records", "x", "--html", "x"], "--records ... --html"),
    ],
)
def test_an_option_has_its_own_form_and_place(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(cli, [*CHECK, *words])
    assert found.exit_code == 2, found.output
    wording.line(found.output, told)
    assert not list(tmp_path.iterdir()), "it was refused before anything ran"


# Of each command that writes a file: its words, a name that does not fit, and what is allowed.
ENDINGS = {
    "check --html": (f"{' '.join(CHECK)} --html", "x.pdf", ".html or .htm"),
    "check --markdown": (f"{' '.join(CHECK)} --markdown", "x.txt", ".md"),
    "check --junit": (f"{' '.join(CHECK)} --junit", "x.json", ".xml"),
    "check --records": (f"{' '.join(CHECK)} --records", "x.html", ".jsonl or .json"),
    "bench --records": ("bench lesson6/first_rnn --backend numpy --records", "x.csv", ".json"),
    "bench --html": ("bench lesson6/first_rnn --backend numpy --html", "x.pdf", ".html or .htm"),
    "run": ("run lesson6/first_rnn --backend numpy -o", "x.json", ".npz"),
    "train": (
        "train lesson6/first_rnn --backend numpy --text builtin --weights",
        "x.pt",
        ".safetensors or .st",
    ),
    "import": (
        f"import lesson6/first_rnn {__file__} --from torch --weights",
        "x.pt",
        ".safetensors or .st",
    ),
    "report": ("report given.jsonl -o", "x.pdf", ".html, .htm, .md or .xml"),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_a_name_that_ends_as_another_kind_is_refused_before_the_run(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, name, allowed = ENDINGS[case]
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(cli, [*words.split(), name])
    assert found.exit_code == 2, found.output
    assert name in found.stderr
    assert f" in {allowed}" in found.stderr
    assert found.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [[*CHECK, "--html"], ["report", "absent.jsonl", "-o"]])
def test_a_page_that_cannot_be_drawn_is_told_before_the_run(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when matplotlib was built for another numpy: it is there, and cannot be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(svg_pictures, "available", lambda: True)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    found = CliRunner().invoke(cli, [*words, "x.html"])
    assert found.exit_code == 2, found.output
    assert "cannot write x.html" in found.stderr
    assert "matplotlib.figure" in found.stderr
    assert found.stdout == ""


@pytest.mark.parametrize("words", [[*CHECK, "--html"], ["report", "absent.jsonl", "-o"]])
def test_a_missing_template_ends_before_the_run(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page_module, "SCRIPTS", ("absent.js",))
    page_module._load_templates.cache_clear()
    found = CliRunner().invoke(cli, [*words, "x.html"])
    assert isinstance(found.exception, TemplateNotFound)
    assert found.stdout == ""
    assert not list(tmp_path.iterdir())


def test_the_option_says_the_form_where_the_name_says_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(
        cli, [*CHECK, "--html", "page", "--markdown", "told", "--junit", "x"]
    )
    assert found.exit_code == 0, found.output
    assert Path("page").read_text().startswith("<!doctype html>")
    assert Path("told").read_text().startswith("<!-- backend-comparison-harness report -->")
    assert Path("x").read_text().startswith("<?xml")


def test_a_command_that_is_refused_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for words in (["no_such_model"], ["lesson6/first_rnn", "--size", "vocab=0"]):
        found = CliRunner().invoke(cli, ["check", *words, "--html", "x.html"])
        assert found.exit_code == 2, found.output
    assert not list(tmp_path.iterdir())


def test_records_of_an_interrupt_are_kept_where_no_report_can_be_made(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "x.html"

    def stopped(request: Request, *_: object) -> int:
        assert request.records is not None
        Path(request.records).write_bytes((files / "run.jsonl").read_bytes())
        page.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("harness.checking.console"), "run_check", stopped)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = CliRunner().invoke(cli, [*CHECK, "--html", str(page)])
    assert "cannot write" in found.stderr
    assert [path.name for path in tmp_path.rglob("results")] == ["results"]


@pytest.mark.parametrize("ended", [True, False])
def test_an_interrupt_keeps_and_shows_records_with_cells_only(
    ended: bool, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (files / "run.jsonl").read_text().splitlines(keepends=True)
    written = "".join(lines if ended else lines[:1])

    def stopped(request: Request, *_: object) -> int:
        assert request.records is not None
        Path(request.records).write_text(written)
        raise KeyboardInterrupt

    # harness.check is the function of the API.
    monkeypatch.setattr(import_module("harness.checking.console"), "run_check", stopped)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = CliRunner().invoke(cli, [*CHECK, "--html", str(tmp_path / "x.html")])
    assert found.exit_code == 130
    left = [path.name for path in tmp_path.rglob("results")]
    assert bool(left) == ended
    assert ("finished cells are in" in found.stderr) == ended
    assert ("interrupted; no cell had finished yet" in found.stderr) != ended
    assert len(list(tmp_path.glob("harness-report-*"))) == ended
    assert (tmp_path / "x.html").exists() == ended


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run.jsonl", "--history", ".", "-o", "o.md"], "--history"),
        (["run.jsonl", "--base", "run.jsonl", "-o", "o.xml"], ""),
        (["run.jsonl", "bench.json", "-o", "o.xml"], "bench.json"),
        (["run.jsonl", "w.safetensors", "-o", "o.xml"], "w.safetensors"),
        (["run.jsonl", "--base", "w.safetensors", "-o", "o.md"], "w.safetensors"),
        (
            ["bench.json", "--base", "bench.json", "--base", "bench.json", "-o", "o.md"],
            "--base ... 2 ... bench.json, bench.json",
        ),
        (
            ["run.jsonl", "--base", "run.jsonl", "--base", "run.jsonl", "-o", "o.md"],
            "--base ... run.jsonl, run.jsonl ... 2",
        ),
        (["run.jsonl", "-o", "o.yaml"], ".html, .htm, .md or .xml"),
    ],
)
def test_nothing_that_is_given_is_left_out_in_silence(
    words: list[str],
    told: str,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wording: Wording,
) -> None:
    monkeypatch.chdir(files)
    output = tmp_path / words[-1]
    found = made(*words[:-1], output)
    assert found.exit_code == 2, found.output
    wording.line(found.output, told)
    assert not output.exists()


def test_a_program_is_told_where_the_report_is(files: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.md"
    words = ["report", str(files / "run.jsonl"), "-o", str(output), "--json"]
    found = CliRunner().invoke(cli, words)
    assert json.loads(found.stdout) == {"output": str(output), "form": "markdown"}
    assert output.is_file()
