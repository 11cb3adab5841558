"""Reports: what stands in them, and that no text of a stranger becomes markup."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import report_files
from click.testing import CliRunner
from report_pages import HOSTILE, Tags, made, page
from wording import Wording

from harness.commands import cli
from harness.report import svg_pictures


def test_a_page_has_all_parts_in_order(files: Path, tmp_path: Path, wording: Wording) -> None:
    history = tmp_path / "history"
    history.mkdir()
    for name in ("run.jsonl", "bench.json"):
        (history / name).write_bytes((files / name).read_bytes())
    (history / "notes.txt").write_text("no run")
    older = report_files.speeds(tmp_path / "older.json", 0.5)
    (history / "older.json").write_bytes(older.read_bytes())
    inputs = (files / "run.jsonl", files / "bench.json", files / "w.safetensors")
    options = ("--base", older, "--history", history, "--relative-to", "numpy")
    text = page(tmp_path, *inputs, *options)
    tags = Tags(text)
    assert not tags.open
    sections = [a["id"] for tag, a in tags.seen if tag == "section" and a.get("id") != "panel"]
    assert sections == [
        "changes",
        "look",
        "matrix",
        "models",
        "growth",
        "speed",
        "training",
        "history",
        "environment",
        "reproduce",
    ]
    assert "<h1>2 of 4 cells differ</h1>" in text
    assert "1 slower" in text
    wording.line(text, "jax</b> ... differs ... 1: loss")
    assert text.count("<svg") >= 3
    # torch takes twice as long as the baseline.
    assert "relative to numpy" in text
    assert ", 0.50 times" in text
    # Nothing from elsewhere, and no script but the page's own.
    assert not re.search(r"(src|href)=\"(?!#)", text)


def test_a_matrix_has_each_dtype_and_the_fault_in_words(files: Path, tmp_path: Path) -> None:
    text = page(tmp_path, files / "run.jsonl")
    cells = re.findall(r'<button type="button" class="cell (\w+)[^"]*"[^>]*title="([^"]*)"', text)
    failed = "differ (outputs: error 3.5e-02)"
    # In two tables, as they are on two devices.
    assert cells == [
        ("agrees", "lesson6/first_rnn on numpy: agree"),
        ("differs", f"lesson6/first_rnn on mutants-1: float32 {failed}, float64 {failed}"),
    ]
    assert "first differs at" in text
    wrong = re.findall(r'<span class="wrong"> *\d+  (.*?)   ← (.*?)\n', text)
    assert wrong == [("equations: y = activation(x @ W + b)", "first wrong value, y")] * 2
    assert re.search(r'<li class="first"><b>[^<]+</b><span>✗ [\d.e-]+, allowed', text)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    rows = [
        row
        for entry in data["entries"].values()
        for one in entry["dtypes"]
        for row in one["checks"]
    ]
    assert {data["names"][row[0]] for row in rows} >= {"outputs", "gradients", "training"}


def test_a_page_says_which_digits_moved_as_compare_does(
    files: Path, tmp_path: Path, wording: Wording
) -> None:
    """They are no change, as the model or its rounding errors may be others."""
    records = files / "run.jsonl"
    older = report_files.changed(
        records,
        tmp_path / "old.jsonl",
        {name: lambda value: value and value / 30 for name in ("error", "yardstick", "tolerance")},
        kind="result",
        dtype="float32",
        backend="numpy",
    )
    text = page(tmp_path, records, "--base", older)
    wording.line(text, "worse; ... digits changed")
    wording.line(text, "changed digits")
    assert "<li>lesson6/first_rnn on numpy, float32, native: " in text
    assert made(records, "--base", older, "-o", tmp_path / "out.md").exit_code == 0
    wording.line((tmp_path / "out.md").read_text(), "changed digits")


def test_texts_of_strangers_stay_texts(files: Path, tmp_path: Path) -> None:
    bad = report_files.changed(
        files / "run.jsonl", tmp_path / "bad.jsonl", {"detail": HOSTILE}, verdict="differ"
    )
    for name in ("spec", "backend", "location", "worst", "traceback", "backend_version"):
        kinds = ("begin", "result", "end") if name in ("spec", "backend") else ("result", "end")
        for kind in kinds:
            change = {name: f"{HOSTILE}{name}"}
            if kind == "end" and name not in ("spec", "backend", "location"):
                continue
            if kind == "result" and name == "location":
                continue
            report_files.changed(bad, bad, change, kind=kind)
    older = report_files.changed(bad, tmp_path / "old.jsonl", {"verdict": "agree"}, kind="result")
    text = page(tmp_path, bad, "--base", older)
    tags = Tags(text)
    assert not tags.open
    assert "img" not in {tag for tag, _ in tags.seen}
    assert not [a for _, attributes in tags.seen for a in attributes if a.startswith("on")]
    assert text.count("<script") == 2
    # As it stands between its neighbours, for a page may have a 49 of its own.
    assert set(re.findall(r"alert\(1\)\S* (\{\{ 7 \* 7 \}\}|49\b)", text)) == {"{{ 7 * 7 }}"}
    for suffix in ("md", "xml"):
        found = made(bad, "-o", tmp_path / f"out.{suffix}")
        assert found.exit_code == 0, found.output
    ElementTree.fromstring((tmp_path / "out.xml").read_bytes())
    # Within a span of code nothing is markup.
    span = r"(?<![\\`])(`+)(?!`)[^\n]*?(?<!`)\1(?!`)"
    markdown = re.sub(span, "", (tmp_path / "out.md").read_text())
    assert not re.search(r"(?<!\\)(<img|]\(javascript)", markdown)
    assert "@all" not in markdown


def test_junit_has_true_times_and_the_backend_in_each_name(files: Path, tmp_path: Path) -> None:
    assert made(files / "run.jsonl", "-o", tmp_path / "out.xml").exit_code == 0
    root = ElementTree.parse(tmp_path / "out.xml").getroot()
    lines = [json.loads(line) for line in (files / "run.jsonl").read_text().splitlines()]
    results = [line for line in lines if line["kind"] == "result"]
    cases = root.findall(".//testcase")
    assert len(cases) == len(results)
    assert {suite.get("name") for suite in root} == {"numpy", "mutants-1"}
    assert all(c.get("classname", "").split(".")[0] in ("numpy", "mutants-1") for c in cases)
    assert len({(c.get("classname"), c.get("name")) for c in cases}) == len(cases)
    assert sum(float(c.get("time", 0)) for c in cases) == pytest.approx(
        sum(line["seconds"] for line in results), abs=0.01
    )
    failed = [c for c in cases if c.find("failure") is not None]
    assert len(failed) == sum(line["verdict"] == "differ" for line in results) > 0


def test_markdown_tells_of_the_fault_and_the_speeds(files: Path, tmp_path: Path) -> None:
    inputs = (files / "run.jsonl", files / "bench.json")
    assert made(*inputs, "-o", tmp_path / "out.md").exit_code == 0
    text = (tmp_path / "out.md").read_text()
    assert "## ✗ 2 of 4 cells differ" in text
    assert ", native on leaky-relu, float32 / float64**\n\n| system | mutants-1 |" in text
    assert "| lesson6/first\\_rnn | ✗ differ" in text
    assert "| sequence\\_rnn | - | 512 | 256 |" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["notes.txt", "-o", "o.html"], "notes.txt"),
        (["missing", "-o", "o.html"], ""),
        (["run.jsonl", "run.jsonl", "-o", "o.html"], "2"),
        (["run.jsonl", "-o", "o.pdf"], ".html, .htm, .md or .xml"),
        (["run.jsonl", "-o", "notes.html"], "'harness report'"),
        (["run.jsonl", "-o", "no/o.html"], ""),
        (["bench.json", "-o", "o.xml"], "JUnit ... bench.json"),
        (["bench.json", "--base", "run.jsonl", "-o", "o.html"], ""),
        (["run.jsonl", "--base", "bench.json", "-o", "o.html"], ""),
        (["run.jsonl", "--history", "run.jsonl", "-o", "o.html"], ""),
        (["run.jsonl", "--history", "empty", "-o", "o.html"], ""),
    ],
)
def test_what_no_report_can_be_made_of(
    words: list[str],
    told: str,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wording: Wording,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run.jsonl", "bench.json"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    (tmp_path / "notes.txt").write_text("my notes")
    (tmp_path / "notes.html").write_text("my notes")
    (tmp_path / "empty").mkdir()
    found = made(*words)
    assert found.exit_code == 2, found.output
    wording.line(found.output, told)
    assert "Traceback" not in found.output
    assert (tmp_path / "notes.html").read_text() == "my notes"
    assert not (tmp_path / "o.html").exists()


def test_a_page_without_matplotlib_has_numbers(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svg_pictures, "available", lambda: False)
    text = page(tmp_path, files / "run.jsonl", files / "bench.json", files / "w.safetensors")
    assert "<svg" not in text
    assert "512 k" in text
    assert "backend-comparison-harness[report]" in text


def test_check_makes_reports_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["check", "lesson6/first_rnn", "--backend", "numpy", "--check", "values"]
    outputs = ["--html", "r.html", "--markdown", "r.md", "--junit", "r.xml"]
    found = CliRunner().invoke(cli, [*words, *outputs])
    assert found.exit_code == 0, found.output
    assert {path.name for path in tmp_path.iterdir()} == {"r.html", "r.md", "r.xml"}
    assert "<h1>All 2 cells agree</h1>" in Path("r.html").read_text()
    Path("r.html").write_text("my own page")
    found = CliRunner().invoke(cli, [*words, "--html", "r.html"])
    assert found.exit_code == 2
    assert Path("r.html").read_text() == "my own page"
    # It was refused before anything ran.
    assert "digits of agreement" not in found.output


def test_speeds_beside_a_baseline_in_markdown_and_from_bench(tmp_path: Path) -> None:
    results, output = report_files.speeds(tmp_path / "bench.json"), tmp_path / "out.md"
    assert made(results, "--relative-to", "torch", "-o", output).exit_code == 0
    row = re.search(r"^\| sequence\\_rnn .*", output.read_text(), re.MULTILINE)
    assert row is not None
    assert row[0].replace("\\", "") == "| sequence_rnn | - | 512 (2.00x) | 256 (1.00x) |"


def test_an_option_is_not_broken_at_its_hyphens(tmp_path: Path) -> None:
    results = report_files.speeds(tmp_path / "bench.json")
    found = json.loads(results.read_text())
    for one in found["benchmarks"]:
        one["extra_info"]["doubts"] = ["measure <it> with --rounds"]
    results.write_text(json.dumps(found))
    assert made(results, "-o", tmp_path / "out.html").exit_code == 0
    shown = 'measure &lt;it&gt; with <span class="option">--rounds</span>'
    assert shown in (tmp_path / "out.html").read_text()
