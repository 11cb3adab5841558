"""Record files that are damaged: ``--resume`` says which line is wrong, and how."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import warm_commands
from damage import ABSURD, GONE, changed, flips, mutations
from rich.console import Console
from wording import Wording

from harness.checking import report as reports
from harness.checking.engine import Engine
from harness.checking.history import records_of
from harness.checking.request import Request
from harness.checking.runner import Report
from harness.errors import HarnessError
from harness.output.table import show
from harness.results import file
from harness.results.file import RecordError, read_records
from harness.results.lines import FORMS, results_of

REQUEST = Request(
    specs=("lesson6/simple_rnn",), backends=("numpy",), dtypes=("float64",), checks=("values",)
)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The lines of a run: a head, a begin, results, an end, that it is done."""
    path = tmp_path_factory.mktemp("records") / "r.jsonl"
    with Engine(Request(**{**vars(REQUEST), "records": path})) as engine:
        engine.run()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["kind"] for line in found] == ["head", "begin", *["result"] * 3, "end", "done"]
    return found


def test_a_line_of_a_gigabyte_is_not_read(
    lines: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    """One of 990 MB took 4.8 GiB, and made a page of as many bytes."""
    monkeypatch.setattr(file, "MAX_LINE", 10_000)
    long = {**lines[2], "detail": ""}
    text = [json.dumps(line, separators=(",", ":")) for line in (*lines[:2], long, *lines[3:])]
    text[2] = text[2].replace('"detail":""', f'"detail":"{"x" * (10_001 - len(text[2]))}"')
    for shown in (text, text[:3]):  # in the middle, and the last one
        (tmp_path / "r.jsonl").write_text("\n".join(shown))
        with wording.raises(RecordError, "r.jsonl:3 ... 10,001 ... 10,000"):
            read_records(tmp_path / "r.jsonl")


# Lines that this run has none of.
OTHERS: dict[str, dict[str, Any]] = {
    "torn": {"kind": "torn", "bytes": 3},
    "blame": {
        "kind": "blame",
        "spec": "lesson6/simple_rnn",
        "backend": "numpy",
        "device": "cpu",
        "dtype": "float32",
        "path": "native",
        "blame": {"who": "spec", "words": "both differ"},
    },
    "pair": {
        "kind": "pair",
        "spec": "lesson6/simple_rnn",
        "device": "cpu",
        "dtype": "float32",
        "path": "native",
        "backends": ["numpy", "torch"],
        "error": 1e-7,
        "worst": "output.logits",
    },
}


def taken_up(path: Path) -> int:
    """All that a report shows of the cells that a file holds; how many there are."""
    report = Report(list(records_of(path, REQUEST).ended.values()))
    console = Console(file=io.StringIO(), width=160)
    show(console, *reports.make_tables(report))
    for lines_ in (
        reports.describe_problems(report),
        reports.describe_details(report),
        reports.list_known_differences(report),
    ):
        "\n".join(lines_)
    reports.summarise(report)
    json.dumps([line.plain() for result in report.results for line in results_of(result)])
    _ = report.exit_code
    return len(report.results)


def refused(path: Path) -> str:
    """What is said of a file; empty if it is read."""
    try:
        read_records(path)
    except RecordError as error:
        return str(error)
    return ""


def written(path: Path, lines: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_good_file_is_taken_up(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    assert taken_up(written(tmp_path / "r", lines)) == 1


@pytest.mark.parametrize("seed", range(2))
def test_any_field_may_be_damaged(seed: int, lines: list[dict[str, Any]], tmp_path: Path) -> None:
    refusals = 0
    for bad in mutations(lines, 150, seed):
        path = written(tmp_path / "r", bad if isinstance(bad, list) else [bad])
        try:
            taken_up(path)
        except HarnessError as error:
            refusals += str(path) in str(error)
    assert refusals > 75


def test_any_byte_may_be_damaged(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    content = written(tmp_path / "r", lines).read_bytes()
    for bad in flips(content, 150):
        (tmp_path / "r").write_bytes(bad)
        try:
            taken_up(tmp_path / "r")
        except HarnessError:
            continue


@pytest.mark.parametrize("kind", FORMS)
def test_every_field_of_every_kind_is_checked(
    kind: str, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    known = {line["kind"]: line for line in lines}
    line = {**OTHERS, **known}[kind]
    fields = FORMS[kind].model_fields
    for name, field in fields.items():
        key = field.alias or name
        if key == "kind":
            continue
        for value in (*ABSURD, GONE):
            if value is GONE and key not in line:
                continue  # a check that is not training has no growth
            bad = changed(line, (key,), value)
            path = written(tmp_path / "r", [lines[0], bad])
            if told := refused(path):
                assert told.startswith(f"{path}:2: "), (key, value)
            else:
                FORMS[kind].model_validate(bad)
                assert value is not GONE or not field.is_required(), (key, value)


@pytest.mark.parametrize(
    ("kind", "field", "value", "words"),
    [
        ("end", "seconds", "soon", "'soon'"),
        ("end", "could_not_run", GONE, "'could_not_run'"),
        ("result", "verdict", "agreed", "'agree'"),
        ("result", "held", "x", "'x'"),
        ("result", "yardstick", 0, "0 ... 0"),
        ("result", "worst", None, ""),
        ("begin", "spec", 3, "expected ... 3"),
        ("result", "growth", [["NaN", 1, 1]], "growth.0.0 ... 'NaN'"),
        ("head", "planned", -1, ""),
        ("head", "request", {"sizes": [3]}, "request.sizes"),
        ("head", "schema", 2, "2"),
        ("head", "environment", [], ""),
    ],
)
def test_the_command_tells_line_and_field(
    kind: str,
    field: str,
    value: Any,
    words: str,
    lines: list[dict[str, Any]],
    tmp_path: Path,
    wording: Wording,
) -> None:
    at = next(i for i, line in enumerate(lines) if line["kind"] == kind)
    path = written(tmp_path / "r", changed(lines, (at, field), value))
    command = ["check", *REQUEST.specs, "--backend", "numpy", "--check", "values"]
    command += ["--dtype", "float64", "--records", str(path), "--resume"]
    run = warm_commands.run(command)
    assert run.returncode == 2, run.stdout + run.stderr
    assert run.stderr.startswith(f"{path}:{at + 1}: ")
    wording.line(run.stderr, words)
    assert "Traceback" not in run.stderr


def test_kinds_and_fields_that_are_not_known_are_passed_over(
    lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    more = [{**line, "new": [1]} for line in lines]
    assert taken_up(written(tmp_path / "r", [*more, {"kind": "later", "spec": 3}])) == 1


def test_a_last_line_that_is_whole_and_wrong_is_not_torn(
    lines: list[dict[str, Any]], tmp_path: Path, wording: Wording
) -> None:
    path = written(tmp_path / "r", lines[:-2])
    with path.open("a") as file:
        file.write('{"kind": "end"}')
    with wording.raises(RecordError, "r:6 ... 'spec'"):
        read_records(path)
    with path.open("a") as file:
        file.truncate(path.stat().st_size - 4)
    assert read_records(path).torn == '{"kind": "e'
