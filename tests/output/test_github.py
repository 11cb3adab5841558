"""What is told to GitHub is escaped as each place wants it, and no stranger's text acts there."""

from __future__ import annotations

from pathlib import Path

import pytest
from wording import Wording

from harness.commands import cli
from harness.output import github
from harness.output.printing import annotating

HOSTILE = "a\x1b[31m,b:c%d\r\n::error::x | `y` <img src=x> [l](u) @team #1 *b* _i_ & ~s~ $m$"


def test_an_annotation_is_one_line_and_its_text_is_data() -> None:
    text = github.annotation(HOSTILE, HOSTILE)
    head, properties, message = text.split("::", 2)[0], *text.split("::", 2)[1:]
    assert head == ""
    assert "\n" not in text
    assert "\r" not in text
    assert "\x1b" not in text
    # Of a property, a comma or a colon would end it; a percent would begin an escape.
    assert properties.startswith("error title=a\\x1b[31m%2Cb%3Ac%25d\\x0d%0A%3A%3Aerror%3A%3Ax")
    assert message.startswith("a\\x1b[31m,b:c%25d\\x0d%0A::error::x")


def test_the_place_is_the_first_that_the_repository_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    (root / "models").mkdir(parents=True)
    (root / "models" / "a,b.yaml").touch()
    (tmp_path / "outside.yaml").touch()
    monkeypatch.setenv("GITHUB_WORKSPACE", str(root))
    monkeypatch.chdir(root / "models")
    places = ["gone.yaml:3", "../../outside.yaml:4", "a,b.yaml:x", "a,b.yaml:5", "a,b.yaml:6"]
    told = github.annotation("title", "text", places)
    assert told == "::error file=models/a%2Cb.yaml,line=5,title=title::text"
    assert github.annotation("t", "m", places[:3], "warning") == "::warning title=t::m"
    told = github.annotation("t", "m", ["a,b.yaml:5:7"])
    assert told == "::error file=models/a%2Cb.yaml,line=5,col=7,title=t::m"
    assert github.annotation("t", "m", ["nul\0.yaml:1"]) == "::error title=t::m"


def test_no_more_than_github_shows(wording: Wording) -> None:
    ten = [github.annotation("t", str(number)) for number in range(10)]
    assert github.limit(ten) == ten
    many = github.limit([*ten, *ten])
    assert many[:9] == ten[:9]
    wording(many[9:], "::error title=11 more::11")


def test_a_summary_is_added_to_and_has_an_end(tmp_path: Path, wording: Wording) -> None:
    path = tmp_path / "summary.md"
    variables = {"GITHUB_STEP_SUMMARY": str(path)}
    assert github.summarise("one \ud800", variables) == ""
    assert github.summarise("two", variables) == ""
    assert path.read_text() == "one \\ud800\ntwo\n"
    path.unlink()
    assert github.summarise("a line\n" * 1_000_000, variables) == ""
    assert path.stat().st_size < 1024 * 1024
    wording.line(path.read_text(), "summary: see the")
    assert github.summarise("text", {}) == ""
    assert github.summarise("x", {"GITHUB_STEP_SUMMARY": str(tmp_path)}).endswith("is a directory")
    assert "nul" in github.summarise("x", {"GITHUB_STEP_SUMMARY": "nul\0"})


def test_annotations_only_where_github_runs_it() -> None:
    assert annotating({"GITHUB_ACTIONS": "true"})
    assert not annotating({"GITHUB_ACTIONS": "false"})
    assert not annotating({})


def test_a_wrong_spec_is_an_annotation_at_its_place_and_in_the_summary(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wording: Wording,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text("model: x\nsummary: S\nsource: A test\nsizs: {a: 1}\n")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["explain", "x.yaml"], prog_name="harness")
    assert ended.value.code == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("::")]
    start = "::error file=x.yaml,line=4,col=1,title=harness explain::unknown key 'sizs'"
    assert [line for line in told if line.startswith(start)]
    assert len(told) > 1  # keys are missing, too
    summary = (tmp_path / "summary.md").read_text()
    wording.line(summary, "### harness explain:")
    assert summary.count("\n- ") == len(told)
