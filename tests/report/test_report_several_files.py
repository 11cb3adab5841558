"""Reports of files that do not have one machine, or nothing that could be run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import report_files
from report_pages import markdown, page
from wording import Wording


def test_speeds_of_two_machines_are_told_apart(files: Path, tmp_path: Path) -> None:
    content = json.loads((files / "bench.json").read_text())
    machine = content["machine_info"]["harness"]["machine"]
    here = machine["cpu"]
    machine |= {"cpu": "another processor", "host": "elsewhere"}
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    both = (files / "bench.json", other)
    text = markdown(tmp_path, *both)
    titles = [row for row in text.splitlines() if row.startswith("**train")]
    assert len(titles) == len(set(titles)) == 2
    assert titles[1].startswith("**train, batch 64 (")
    assert "other.json" in titles[1]
    facts = [row for row in text.splitlines() if row.startswith("- cpu")]
    assert len(facts) == 2
    assert any(row.endswith(": another processor") for row in facts)
    assert any(row.endswith(f": {here}") for row in facts)
    shown = page(tmp_path, *both)
    assert len(set(re.findall(r"<h3>(train, batch 64[^<]*)</h3>", shown))) == 2
    assert "<td>another processor</td>" in shown
    assert f"<td>{here}</td>" in shown
    # One file needs no name, and its machine stands at the top.
    alone = page(tmp_path, other)
    assert "<h3>train, batch 64</h3>" in alone
    assert "<li>another processor · " in alone


def test_speeds_on_another_machine_than_the_checks_are_not_taken_for_theirs(
    files: Path, tmp_path: Path
) -> None:
    content = json.loads((files / "bench.json").read_text())
    content["machine_info"]["harness"]["machine"]["host"] = "elsewhere"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    text = markdown(tmp_path, files / "run.jsonl", other)
    hosts = [row for row in text.splitlines() if row.startswith("- host")]
    assert hosts[1].endswith("/other.json): elsewhere")
    assert len(hosts) == 2


def test_no_speed_at_all_is_not_green(files: Path, tmp_path: Path) -> None:
    content = json.loads((files / "bench.json").read_text())
    content["benchmarks"] = content["harness"]["without_speed"] = []
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps(content))
    assert "## ⚠ 0 speeds\n" in markdown(tmp_path, empty)


def test_markdown_says_why_a_cell_could_not_be_run(
    files: Path, tmp_path: Path, wording: Wording
) -> None:
    seen = {"verdict": "crashed", "detail": "the worker was killed by SIGSEGV"}
    lost = report_files.changed(files / "run.jsonl", tmp_path / "run.jsonl", seen, backend="numpy")
    text = markdown(tmp_path, lost)
    row = next(row for row in text.splitlines() if row.startswith("- **") and "on numpy" in row)
    wording.line(row, "native: crashed** outputs ... SIGSEGV")
    # Where the place is known it is told, in a sentence of its own.
    row = next(row for row in text.splitlines() if row.startswith("- **") and "mutants" in row)
    wording(row)


def test_a_page_without_a_table_has_nothing_to_filter(files: Path, tmp_path: Path) -> None:
    assert "<kbd>/</kbd> to filter" in page(tmp_path, files / "run.jsonl")
    assert "<kbd>/</kbd> to filter" not in page(tmp_path, files / "bench.json")
