"""Two columns of one run held against each other, and the command that does it all."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_results import REQUEST, result, speed_file
from click.testing import CliRunner
from wording import Wording

from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.cli import cli
from harness.timing.json_file import document, write

SPEC = "lesson6/three_char"
OLD = f"numpy@old={sys.executable}"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("between") / "run.jsonl"
    request = Request((SPEC,), ("numpy", OLD), checks=("inference",), records=path)
    with Engine(request) as engine:
        engine.run()
    return path


def run(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_columns_of_a_check(records: Path, tmp_path: Path, wording: Wording) -> None:
    code, out, _ = run("compare", records, "--between", "numpy@old", "numpy")
    assert code == 0
    wording(out, "numpy@old ... numpy")
    # The new version differs where the old one agrees: worse in one direction only.
    lines = [
        line.replace('"verdict":"agree"', '"verdict":"differ"')
        if '"backend":"numpy"' in line
        else line
        for line in records.read_text().splitlines(keepends=True)
    ]
    worse = tmp_path / "worse.jsonl"
    worse.write_text("".join(lines))
    code, out, _ = run("compare", worse, "--between", "numpy@old", "numpy")
    assert code == 1
    cell = f"{SPEC} ... numpy, float64, native"
    wording.line(out, f"{cell} ... agree ... differ")
    code, out, _ = run("compare", worse, "--between", "numpy", "numpy@old")
    assert code == 0
    wording(out.splitlines()[-1], "numpy ... numpy@old ... 2")


def test_other_versions_are_told_first(records: Path, tmp_path: Path, wording: Wording) -> None:
    lines = []
    for line in map(json.loads, records.read_text().splitlines()):
        if line["kind"] == "end" and line["backend"] == "numpy":
            line["greeting"]["numpy"] = "9.9"
        lines.append(json.dumps(line))
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(lines) + "\n")
    _, out, _ = run("compare", other, "--between", "numpy@old", "numpy")
    wording.line(out, "numpy ... numpy")
    assert out.splitlines()[0].endswith(" became 9.9")


def test_what_is_not_known_of_another_environment_is_no_change(
    tmp_path: Path, wording: Wording
) -> None:
    """The version of the harness is read where it runs: of another interpreter it is not known."""
    python, path = tmp_path / "python", tmp_path / "run.jsonl"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    request = Request((SPEC,), ("numpy", f"numpy@old={python}"), checks=("inference",))
    with Engine(replace(request, records=path)) as engine:
        engine.run()
    for names in (("numpy", "numpy@old"), ("numpy@old", "numpy")):
        _, out, _ = run("compare", path, "--between", *names)
        wording(out, f"{names[0]} ... {names[1]}")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {"extra": "3.1"}, "extra of numpy: now 3.1 (before: none)"),
        ({"extra": "3.1"}, {}, "extra of numpy: now none (before: 3.1)"),
    ],
    ids=["new", "gone"],
)
def test_a_package_that_one_side_lacks(
    before: dict[str, str], after: dict[str, str], told: str, records: Path, tmp_path: Path
) -> None:
    lines = []
    for line in map(json.loads, records.read_text().splitlines()):
        if line["kind"] == "end":
            line["greeting"] |= before if line["backend"] == "numpy@old" else after
        lines.append(json.dumps(line))
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(lines) + "\n")
    _, out, _ = run("compare", other, "--between", "numpy@old", "numpy")
    assert out.splitlines()[0] == f"different: {told}"


def test_two_frameworks_of_a_check_are_not_told_what_only_one_is_made_of(
    records: Path, tmp_path: Path, wording: Wording
) -> None:
    lines = []
    for line in map(json.loads, records.read_text().splitlines()):
        if line.get("backend") == "numpy@old":
            line["backend"] = "torch"
            if line["kind"] == "end":
                line["greeting"]["torch"] = "2.0"
            elif line["kind"] == "begin":
                line["signature"] |= {"backend": "other 1.0", "--env OMP_NUM_THREADS": "1"}
        lines.append(json.dumps(line))
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(lines) + "\n")
    _, out, _ = run("compare", other, "--between", "numpy", "torch")
    wording(out.splitlines(), "--env OMP_NUM_THREADS ... torch: now 1 ... numpy ... torch")


def timed(seconds: Mapping[str, float]) -> dict[str, Any]:
    """A file of results with a column for each speed: made from a real one's cell."""
    content: dict[str, Any] = document(REQUEST, [result()]).plain()
    (entry,) = content["benchmarks"]
    backend = entry["params"]["backend"]
    workers = content["machine_info"]["harness"]["workers"]
    content["benchmarks"] = []
    for column, each in seconds.items():
        one = deepcopy(entry)
        one["params"]["backend"] = column
        for key in ("name", "fullname"):
            one[key] = one[key].replace(f"[{backend}-", f"[{column}-")
        one["stats"]["data"] = [each * (1 + k / 1000) for k in range(5)]
        one["stats"]["median"] = each
        content["benchmarks"].append(one)
        if backend in workers:
            workers[column] = deepcopy(workers[backend])
    return content


def test_columns_of_a_bench(tmp_path: Path, wording: Wording) -> None:
    path = tmp_path / "speeds.json"
    write(path, speed_file(timed({"torch@1.0": 0.010, "torch@2.0": 0.015, "other": 1.0})))
    code, out, _ = run("compare", path, "--between", "torch@1.0", "torch@2.0")
    assert code == 1
    assert "slower:" in out
    wording.line(out, "torch@1.0: 15 ... 10")
    assert "before" not in out
    assert "became" not in out
    assert "other" not in out
    assert out.splitlines()[-1].startswith("from torch@1.0 to torch@2.0, beyond 10%")
    code, out, _ = run("compare", path, "--between", "torch@2.0", "torch@1.0")
    assert code == 0
    assert "faster (not worse):" in out
    assert run("compare", path, "--between", "torch@1.0", "torch@2.0", "--threshold", "80%")[0] == 0


def test_two_frameworks_are_not_told_what_only_one_is_made_of(
    tmp_path: Path, wording: Wording
) -> None:
    path = tmp_path / "speeds.json"
    content = timed({"numpy": 0.010, "torch": 0.010, "torch@2.0": 0.010})
    workers = content["machine_info"]["harness"]["workers"]
    workers["numpy"]["versions"] = {"numpy": "2.0"}
    workers["torch"]["versions"] = {"numpy": "2.0", "torch": "1.0"}
    workers["torch@2.0"]["versions"] = {"numpy": "2.1", "torch": "2.0"}
    write(path, speed_file(content))
    assert "different" not in run("compare", path, "--between", "numpy", "torch")[1]
    out = run("compare", path, "--between", "numpy", "torch@2.0")[1]
    wording.line(out, "numpy ... torch@2.0: 2.0 ... 2.1")
    assert "torch of torch" not in out
    assert (
        "torch of torch@2.0: 1.0 became 2.0"
        in run("compare", path, "--between", "torch", "torch@2.0")[1]
    )


def test_what_an_interrupted_bench_has_not_come_to_is_not_lost(
    tmp_path: Path, wording: Wording
) -> None:
    path = tmp_path / "speeds.json"
    content = timed({"torch@1.0": 0.010, "torch@2.0": 0.010})
    further = deepcopy(content["benchmarks"])
    for entry in further:
        for key in ("name", "fullname"):
            entry[key] = entry[key].replace("-b64-", "-b1-")
    # The second batch was timed in one of the columns only.
    content["benchmarks"] += further[:1]
    for columns in (("torch@1.0", "torch@2.0"), ("torch@2.0", "torch@1.0")):
        content["harness"]["incomplete"] = {"done": 3, "planned": 4}
        write(path, speed_file(content))
        code, out, _ = run("compare", path, "--between", *columns)
        assert code == 0
        wording(out.splitlines(), f"3 ... 4 ... {columns[0]} ... {columns[1]} ... 10%")


def test_what_a_stopped_check_has_not_come_to_is_not_lost(
    records: Path, tmp_path: Path, wording: Wording
) -> None:
    path = tmp_path / "cut.jsonl"
    last = {"backend": "numpy@old", "dtype": "float32"}
    lines = [*map(json.loads, records.read_text().splitlines())]
    theirs = [line for line in lines if last.items() <= line.items()]
    kept = [line for line in lines if line not in theirs]
    stopped = "the run was stopped after 3 of 4 cells: the other cells are not compared"

    def told(lines: list[dict[str, Any]], *columns: str) -> tuple[int, list[str]]:
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        code, out, _ = run("compare", path, "--between", *columns)
        return code, out.splitlines()

    for columns in (("numpy", "numpy@old"), ("numpy@old", "numpy")):
        changed = f"from {columns[0]} to {columns[1]}: nothing changed"
        assert told(kept, *columns) == (0, [stopped, changed])
    # One that had begun is lost.
    begun = [line for line in theirs if line["kind"] == "begin"]
    code, out = told(kept + begun, "numpy", "numpy@old")
    assert code == 1
    wording(out[0], "3 ... 4")
    assert out[1] == "lost:"
    wording(out[2])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--between", "numpy@odl", "numpy"), "'numpy@odl' ... 'numpy@old'"),
        (("--between", "numpy", "numpy"), "numpy"),
        ((), "'--between OLD NEW'"),
    ],
)
def test_what_cannot_be_compared(
    words: tuple[str, ...], told: str, records: Path, wording: Wording
) -> None:
    code, _, errors = run("compare", records, *words)
    assert code == 2
    wording.line(" ".join(errors.split()), told)
    code, _, errors = run("compare", records, records, "--between", "a", "b")
    assert code == 2
    wording(errors)


def test_an_upgrade_is_one_command(wording: Wording) -> None:
    words = ("upgrade", OLD, "numpy", SPEC, "--quick", "--want", "numbers")
    code, out, _ = run(*words)
    assert code == 0
    wording.line(out, "numpy@old ... numpy agree ... 16.0")
    wording.line(out.splitlines()[-1], "numpy@old ... numpy")
    code, out, _ = run(*words, "--json")
    content = json.loads(out)
    assert (content["from"], content["to"], content["exit_code"]) == ("numpy@old", "numpy", 0)
    assert content["numbers"]["changes"] == []
    # A version that cannot be run is no upgrade that changes nothing.
    wrong = f"numpy@1.0={sys.executable}"
    code, out, _ = run("upgrade", "numpy", wrong, SPEC, "--quick", "--want", "numbers")
    assert code == 3
    assert "numpy@1.0 was requested" in out


def test_what_is_no_upgrade() -> None:
    code, _, errors = run("upgrade", "numpy", "numpy")
    assert (code, "with itself" in errors) == (2, True)
    code, _, errors = run("upgrade", "torch==9.9", "jax==0.5.0")
    assert (code, "two versions of one backend, found torch and jax" in errors) == (2, True)
    code, _, errors = run("upgrade", "numpy", OLD, "--want", "digits")
    assert (code, "--want takes numbers or speed, found 'digits'" in errors) == (2, True)


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.alone
def test_an_upgrade_tells_of_speeds() -> None:
    words = ("upgrade", OLD, "numpy", SPEC, "--quick", "--want", "speed", "--rounds", "2")
    code, out, _ = run(*words)
    assert code in (0, 1)
    assert "from numpy@old to numpy, beyond 10%" in out
