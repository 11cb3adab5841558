"""``harness compare`` over both kinds of files, and over what is neither."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_results import REQUEST, SPEC, result
from click.testing import CliRunner
from damage import flips, mutations
from wording import Wording

from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.cli import cli
from harness.timing.json_file import document, write


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("compare") / "run.jsonl"
    request = Request(
        specs=("lesson6/simple_rnn",),
        backends=("numpy",),
        checks=("inference",),
        sizes={"hidden": 8},
        records=path,
    )
    with Engine(request) as engine:
        engine.run()
    return path


def run(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["compare", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_records(records: Path, tmp_path: Path, wording: Wording) -> None:
    assert run(records, records) == (0, "nothing changed\n", "")
    worse = tmp_path / "worse.jsonl"
    worse.write_text(records.read_text().replace('"verdict":"agree"', '"verdict":"differ"'))
    code, out, _ = run(records, worse)
    assert code == 1
    wording(
        "".join(out.splitlines(keepends=True)[:2]), "lesson6/simple_rnn on numpy, float64, native: "
    )
    assert out.endswith("\n2 new differences\n")
    code, out, _ = run(worse, records)
    assert code == 0
    wording(out.splitlines()[-1], "2")
    code, out, _ = run(records, worse, "--json")
    content = json.loads(out)
    assert (code, content["exit_code"]) == (1, 1)
    assert content["changes"][0]["checks"][0]["new"]["verdict"] == "differ"


def test_digits_that_moved_are_told_and_are_not_worse(
    records: Path, tmp_path: Path, wording: Wording
) -> None:
    """Another spec has another yardstick: fewer digits alone are not worse."""
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    for line in lines:
        if line.get("worst") and line.get("dtype") == "float32" and line["error"]:
            factor = 3e-5 / line["error"]
            line.update({n: line[n] * factor for n in ("error", "yardstick", "tolerance")})
    pair = {"kind": "pair", "spec": "lesson6/simple_rnn", "dtype": "float32", "path": "native"}
    pair |= {"device": "cpu", "backends": ["numpy", "torch"], "worst": "gradient.h"}
    for name, found, error in (("old", None, 8e-6), ("new", lines, 8e-5)):
        kept = found or [json.loads(line) for line in records.read_text().splitlines()]
        text = "".join(json.dumps(line) + "\n" for line in [*kept, {**pair, "error": error}])
        (tmp_path / name).write_text(text)
    code, out, _ = run(tmp_path / "old", tmp_path / "new")
    assert code == 0
    heading, cell, both, last = out.splitlines()
    wording(heading)
    wording.line(cell, "lesson6/simple_rnn ... numpy, float32, native ... 4.5")
    wording(both, "lesson6/simple_rnn: numpy ... torch, float32, native: 5.1 ... 4.1")
    wording(last)
    _, out, _ = run(tmp_path / "old", tmp_path / "new", "--print-markdown")
    wording(out.splitlines()[0], "**nothing ... worse; ... digits changed**")
    wording.line(out, "lesson6/simple\\_rnn: numpy ... torch, float32, native: 5.1 ... 4.1")
    _, out, _ = run(tmp_path / "old", tmp_path / "new", "--json")
    assert [each["new"] for each in json.loads(out)["digits"]] == pytest.approx(
        [4.52, 4.10], abs=0.01
    )


def test_half_a_run_is_a_loss(records: Path, tmp_path: Path, wording: Wording) -> None:
    lines = records.read_text().splitlines(keepends=True)
    kept = "".join(line for line in lines if '"float32"' not in line)
    half = tmp_path / "half.jsonl"
    half.write_text(kept.replace('"planned":2', '"planned":1'))
    assert run(records, half)[0] == 1
    assert run(half, records)[0] == 0
    none = tmp_path / "none.jsonl"
    none.write_text(lines[0])
    for files in ((none, records), (records, none)):
        code, _, errors = run(*files)
        assert code == 2
        wording.line(errors, "none.jsonl")
    # Of a run that was stopped nothing is lost, and what it has not come to is told.
    half.write_text(kept)
    code, out, _ = run(records, half)
    assert code == 0
    wording(out.splitlines(), "1 ... 2")


def test_a_file_without_any_speed_is_nothing_to_compare_with(
    tmp_path: Path, wording: Wording
) -> None:
    some, none = tmp_path / "bench.json", tmp_path / "none.json"
    write(some, document(REQUEST, [result()]))
    write(none, document(REQUEST, []))
    for pair in ((some, none), (none, some), (none, none)):
        code, out, errors = run(*pair)
        assert (code, out) == (2, "")
        wording.line(errors, "none.json")
    found = CliRunner().invoke(cli, ["bench", SPEC, "--baseline", str(none)])
    assert found.exit_code == 2
    wording.line(found.stderr, f"--baseline {none}")


def test_a_torn_end_is_no_error(records: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(records.read_bytes() + b'{"kind":"begi')
    assert run(records, torn)[0] == 0


def test_mixed_kinds_are_refused(records: Path, tmp_path: Path, wording: Wording) -> None:
    speeds = tmp_path / "bench.json"
    write(speeds, document(REQUEST, [result()]))
    for pair in ((records, speeds), (speeds, records)):
        code, out, errors = run(*pair)
        assert (code, out) == (2, "")
        wording.line(errors, "run.jsonl ... 'harness check'")
        wording.line(errors, "bench.json ... 'harness bench'")
        wording(errors)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"[]", b"{}", b'{"kind":"x"}\n'])
def test_neither_kind_is_refused(content: bytes, records: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(content)
    for pair in ((records, other), (other, records)):
        code, out, errors = run(*pair)
        assert (code, out) == (2, "")
        assert str(other) in errors
    assert run(records, tmp_path / "nowhere")[0] == 2
    assert run(records, tmp_path)[0] == 2


def test_any_damage_is_a_message(records: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    damaged = [
        b"\n".join(json.dumps(line).encode() for line in found) + b"\n"
        for found in mutations(lines, 100, 1)
        if isinstance(found, list)
    ]
    for content in [*damaged, *flips(records.read_bytes(), 100)]:
        bad.write_bytes(content)
        for pair in ((records, bad), (bad, records)):
            code, out, errors = run(*pair)
            assert code in (0, 1, 2)
            assert "\x1b" not in out + errors
