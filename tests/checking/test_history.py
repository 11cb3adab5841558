"""A history answers for what agreed when all was as it is now, and never for anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import warm_commands
from history_runs import Run, renew_checksums
from record_lines import lines_of

from harness.checking import history
from harness.checking.request import Request
from harness.comparison.merging import merge
from harness.errors import UsageError
from harness.report.inputs import read_inputs
from harness.report.junit import junit
from harness.report.markdown import markdown
from harness.results.cell import Cell
from harness.results.file import read_records


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "agree", "check": "loss"},
        {"error": 0.0},
        {"location": "nowhere"},
        {"signature": {"harness": "0"}},
    ],
)
def test_an_edited_record_counts_for_nothing(change: Mapping[str, Any], run: Run) -> None:
    name = next(iter(change))
    kinds = {"verdict": "result", "error": "result", "location": "end", "signature": "begin"}

    def edited(line: dict[str, Any]) -> None:
        if line["kind"] == kinds[name] and line["spec"] == "one" and line[name] is not None:
            line |= {**change}

    run.rewrite(edited)
    told = run()
    assert sorted(told.ran) == ["one on numpy", "one on own-a", "one on own-b"]
    assert "3 cells of " in told.reasons[0]
    assert told.reasons[0].endswith("with a wrong checksum")


def test_a_difference_that_was_edited_into_agreement_is_run(run: Run) -> None:
    def differ(line: dict[str, Any]) -> None:
        if line["kind"] == "result" and line["check"] == "loss":
            line["verdict"] = "differ"

    def agree(line: dict[str, Any]) -> None:
        if line["kind"] == "result":
            line["verdict"] = "agree"

    run.rewrite(differ, honest=True)
    assert len(run.files) == 1
    run.rewrite(agree)
    assert len(run().ran) == 6


def test_a_later_difference_in_the_same_state_decides(run: Run) -> None:
    (first,) = run.files

    def differ(line: dict[str, Any]) -> None:
        if line["kind"] == "head":
            line["started"] = "2999-01-01T00:00:00Z"
        if line["kind"] == "result" and line["check"] == "loss":
            line["verdict"] = "differ"

    right = first.read_text()
    run.rewrite(differ, honest=True)
    first.rename(run.history / "later.jsonl")
    first.write_text(right)
    told = run()
    assert len(told.ran) == 6
    assert told.reasons == ["6 cells are run again: the last verdict is differ"]


def _began(*lines: dict[str, Any], at: str, verdict: str = "agree") -> Iterator[dict[str, Any]]:
    """Lines of a run as another one had written them: at another time, with another verdict."""
    for line in lines:
        changes: dict[str, Any] = {}
        if line["kind"] == "head":
            changes = {"started": at}
        elif line["kind"] == "result" and line["check"] == "loss":
            changes = {"verdict": verdict}
        yield {**line, **changes}


OLD, NEW = "2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z"


def _runs_of(run: Run, *wanted: tuple[str, str]) -> list[str]:
    """What the one file of a history would be of runs that began at a time, with a verdict."""
    (path,) = run.files
    lines = lines_of(path)
    path.unlink()
    return [
        "".join(json.dumps(x) + "\n" for x in renew_checksums([*_began(*lines, at=at, verdict=v)]))
        for at, v in wanted
    ]


@pytest.mark.parametrize("late_first", [False, True])
@pytest.mark.parametrize("way", ["files", "one file", "merged"])
def test_the_later_verdict_decides_wherever_it_stands(
    way: str, late_first: bool, run: Run, tmp_path: Path
) -> None:
    texts = _runs_of(run, (OLD, "agree"), (NEW, "differ"))
    parts = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for part, text in zip(parts, reversed(texts) if late_first else texts, strict=True):
        part.write_text(text)
    if way == "files":
        for part in parts:
            part.rename(run.history / part.name)
    elif way == "one file":
        (run.history / "c.jsonl").write_text("".join(part.read_text() for part in parts))
    else:
        (run.history / "c.jsonl").write_bytes(merge(parts).content)
    told = run()
    assert len(told.ran) == 6
    assert told.reasons == ["6 cells are run again: the last verdict is differ"]


def test_what_was_merged_is_known_from_its_own_day(run: Run, tmp_path: Path) -> None:
    (text, other) = _runs_of(run, (OLD, "agree"), (NEW, "agree"))
    parts = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    parts[0].write_text(text)
    head, *_ = other.splitlines(keepends=True)
    parts[1].write_text(head)
    (run.history / "c.jsonl").write_bytes(merge(parts).content)
    assert run().ran == []
    assert {result.since for result in run.report.results} == {OLD}


def test_of_runs_that_began_in_one_second_that_which_differs_decides(run: Run) -> None:
    for number, text in enumerate(_runs_of(run, (OLD, "agree"), (OLD, "differ"), (OLD, "agree"))):
        (run.history / f"{number}.jsonl").write_text(text)
    assert len(run().ran) == 6


def test_what_began_later_than_now_passes_for_nothing(run: Run) -> None:
    (text,) = _runs_of(run, ("2999-01-01T00:00:00Z", "agree"))
    (run.history / "later.jsonl").write_text(text)
    told = run()
    assert len(told.ran) == 6
    assert "6 cells of " in told.reasons[0]
    assert "which began after the present time, 20" in told.reasons[0]
    # What was run now is known from then on.
    assert run().ran == []


def test_what_was_torn_or_cut_off_is_run(run: Run) -> None:
    (path,) = run.files
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    told = run()
    assert 0 < len(told.ran) < 6
    kept = [r for r in run.report.results if r.kept]
    assert len(kept) + len(told.ran) == 6
    assert run().ran == []


@pytest.mark.parametrize("text", ["{\nno records\n", "\n", '{"kind":"head","schema":99}\n'])
def test_a_file_that_cannot_be_read_is_told_and_passed_over(text: str, run: Run) -> None:
    (run.history / "damaged.jsonl").write_text(text)
    told = run()
    assert told.ran == []
    assert told.reasons[0].startswith("ignored in the history: ")
    assert "damaged.jsonl" in told.reasons[0]


def test_fresh_runs_all_and_is_remembered(run: Run) -> None:
    assert len(run(fresh=True).ran) == 6
    assert len(run.files) == 2
    assert run().ran == []


def test_what_is_kept_stands_in_records_and_in_words(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    (run.site / "own_a" / "kernels.py").write_text("# changed\n")
    run(records=path)
    found = read_records(path).ended
    assert len(found) == 6
    before = read_records(run.files[0]).ended
    for cell, result in found.items():
        kept = cell.backend != "own-a"
        assert any(line.get("since") for line in _begins(path, cell)) == kept
        if kept:
            old = before[cell]
            assert (result.verdict, result.error, result.layers, result.version) == (
                old.verdict,
                old.error,
                old.layers,
                old.version,
            )
            assert result.signature == old.signature
            assert result.since == old.since
    from harness.checking.report import summarise

    day = run.report.results[-1].since[:10]
    assert f"(4 kept: 4 from {day})" in summarise(run.report)


def test_pages_say_which_verdicts_are_kept(run: Run, tmp_path: Path) -> None:
    (run.site / "own_a" / "kernels.py").write_text("# changed\n")
    run(records=tmp_path / "run.jsonl")
    inputs = read_inputs([tmp_path / "run.jsonl"])
    day = run.report.results[-1].since[:10]
    text = markdown(inputs)
    assert f"4 of 6 cells are kept from earlier runs (°): 4 from {day}" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| one |"))
    assert ["°" in entry for entry in row.split("|")[2:-1]] == [True, False, True]
    assert inputs.check is not None
    suites = ElementTree.fromstring(junit(inputs.check))
    kept = {suite.get("name"): len(suite.findall(".//property")) for suite in suites}
    assert kept["own-a"] == 0
    assert kept["own-b"] == kept["numpy"] > 0


def _begins(path: Path, cell: Cell) -> list[dict[str, Any]]:
    lines = lines_of(path, "begin")
    return [line for line in lines if (line["spec"], line["backend"]) == (cell.spec, cell.backend)]


def test_a_folder_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UsageError, match="needs a folder of record files"):
        history.read_history(file, Request())
    assert history.read_history(tmp_path / "none", Request()) == ({}, [])


def test_the_command_and_its_setting(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.harness.check]\nhistory = "known"\n')
    words = ("check", "lesson6/three_char", "--backend", "numpy", "--check", "values")

    def ran(*more: str) -> str:
        found = warm_commands.run([*words, *more], cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        return found.stdout

    assert "kept" not in ran()
    assert len(list((tmp_path / "known").iterdir())) == 1
    shown = ran()
    assert "2 cells: 2 agree (2 kept: 2 from 20" in shown
    assert "numpy: 2 from 20" in shown
    as_json = json.loads(ran("--json"))
    assert {r["since"][:2] for r in as_json["kept"]} == {"20"}
    assert "kept" not in ran("--fresh")
    page = tmp_path / "page.html"
    ran("--html", str(page))
    assert "the verdict is kept from 20" in page.read_text()
    ran("--html", str(page), "--fresh")
    assert "kept from" not in page.read_text()
