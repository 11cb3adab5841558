"""Speeds of several runs in one file: nothing lost, nothing twice, nothing held against another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench_results import REQUEST, refused, result, speed_file
from click.testing import CliRunner
from wording import Wording

from harness.cli import cli
from harness.runs.plans import RunPlan
from harness.timing import json_file
from harness.timing.compare import relative_speeds


def run(*words: object) -> Any:
    return CliRunner().invoke(cli, [*map(str, words)])


def speeds(path: Path, *results: Any, host: str = "one", plan: Any = None) -> Path:
    content = json_file.document(REQUEST, results, plan=plan and RunPlan(**plan)).plain()
    content["machine_info"]["harness"]["machine"] |= {"host": host, "id": f"id of {host}"}
    content["harness"]["commands"] = [["bench", "on", host]]
    json_file.write(path, speed_file(content))
    return path


def test_speeds_are_merged(tmp_path: Path, wording: Wording) -> None:
    plan = {"cells": 4, "digest": "d"}
    one = speeds(
        tmp_path / "1.json",
        result("numpy"),
        result("torch", 0.002),
        plan={**plan, "shard": "1/2"},
    )
    two = speeds(
        tmp_path / "2.json",
        result("numpy", mode="forward"),
        refused("torch", mode="forward"),
        host="two",
        plan={**plan, "shard": "2/2"},
    )
    output = tmp_path / "all.json"
    found = run("merge", one, two, "-o", output)
    assert found.exit_code == 0, found.output
    wording.line(found.stdout, "4 ... 2 ... 2")
    merged = json_file.read(output)
    assert len(merged.benchmarks) == 3
    assert merged.harness.commands == [["bench", "on", "one"], ["bench", "on", "two"]]
    assert [str(r.backend) for r in relative_speeds(merged, "numpy")] == ["torch"]
    found = run("compare", output, output)
    assert (found.exit_code, "nothing" in found.stdout) == (0, True)
    assert run("report", output, "-o", tmp_path / "page.md").exit_code == 0
    found = run("merge", one, "-o", tmp_path / "part.json")
    assert found.exit_code == 3
    wording(found.stdout.splitlines()[-1], "1 ... 2 ... 2/2; 2")


def test_speeds_that_were_merged_before_are_neither_doubled_nor_mixed(
    tmp_path: Path, wording: Wording
) -> None:
    plan = {"cells": 2, "digest": "d", "shard": "1/2"}
    one = speeds(tmp_path / "1.json", result("numpy"), plan=plan)
    two = speeds(tmp_path / "2.json", result("numpy", 0.003), host="two", plan=plan)
    first, again = tmp_path / "first.json", tmp_path / "again.json"
    assert run("merge", one, two, "-o", first).exit_code == 3
    for files in ((first,), (first, one, two), (one, two, first), (first, first), (two, first)):
        found = run("merge", *files, "-o", again)
        assert found.exit_code == 3, found.stdout
        assert "2 cells from" in found.stdout
        assert "2 machines" in found.stdout
        wording(found.stdout.splitlines()[-1], "1 ... 2 ... 2/2; 1")
        merged = json_file.read(again)
        backends = {b.params.backend: b.stats.median for b in merged.benchmarks}
        assert backends == pytest.approx({"numpy on one": 0.001, "numpy on two": 0.003}, rel=0.1)
        assert len({b.group for b in merged.benchmarks}) == 2
    last = speeds(
        tmp_path / "3.json", result("numpy", mode="forward"), plan={**plan, "shard": "2/2"}
    )
    assert run("merge", first, last, "-o", again).exit_code == 0


def test_speeds_of_another_run_are_not_replaced(tmp_path: Path, wording: Wording) -> None:
    paths = [tmp_path / f"{name}.json" for name in ("a", "b")]
    for path, backend in zip(paths, ("numpy", "torch"), strict=True):
        json_file.write(path, json_file.document(REQUEST, [result(backend, 0.001)]))
    before = paths[1].read_bytes()
    found = run("merge", paths[0], "-o", paths[1])
    assert (found.exit_code, paths[1].read_bytes()) == (2, before)
    wording.line(found.output, "1")
    assert run("merge", *paths, "-o", paths[1]).exit_code == 0


def test_speeds_of_two_machines_are_never_held_against_each_other(tmp_path: Path) -> None:
    one = speeds(tmp_path / "1.json", result("numpy"), result("torch", 0.002))
    two = speeds(tmp_path / "2.json", result("numpy", 0.003), host="two")
    output = tmp_path / "all.json"
    assert run("merge", one, two, "-o", output).exit_code == 0
    merged = json_file.read(output)
    backends = [b.params.backend for b in merged.benchmarks]
    assert backends == ["numpy on one", "torch on one", "numpy on two"]
    assert len({b.fullname for b in merged.benchmarks}) == 3
    found = relative_speeds(merged, "numpy on one")
    assert [r.backend for r in found] == ["torch on one"]
    assert relative_speeds(merged, "numpy on two") == []


def test_speeds_of_one_machine_that_are_there_twice(tmp_path: Path, wording: Wording) -> None:
    one = speeds(tmp_path / "1.json", result("numpy"))
    again = speeds(tmp_path / "2.json", result("numpy"))
    slower = speeds(tmp_path / "3.json", result("numpy", 0.002))
    failed = speeds(tmp_path / "4.json", refused("numpy"))
    output = tmp_path / "all.json"
    found = run("merge", one, again, "-o", output)
    wording.line(found.stdout, f"{again}: 1")
    assert len(json_file.read(output).benchmarks) == 1
    found = run("merge", one, slower, "-o", output)
    assert found.exit_code == 0
    wording(found.stdout)
    names = [b.params.backend for b in json_file.read(output).benchmarks]
    assert names == ["numpy", "numpy, copy 2"]
    found = run("merge", one, failed, "-o", tmp_path / "others.json")
    assert found.exit_code == 1
    wording.line(found.stdout, f"{one} ... {failed}")


def test_speeds_of_two_models_of_one_name_are_told(tmp_path: Path, wording: Wording) -> None:
    def of_model(path: Path, model: str, host: str) -> Path:
        content = json_file.read(speeds(path, result("numpy"), host=host)).plain()
        content["benchmarks"][0]["extra_info"]["model"] = model
        json_file.write(path, speed_file(content))
        return path

    one, two = (of_model(tmp_path / f"{m}.json", m, m) for m in ("one", "two"))
    same = of_model(tmp_path / "same.json", "one", "three")
    output = tmp_path / "all.json"
    assert run("merge", one, same, "-o", output).exit_code == 0
    found = run("merge", one, same, two, "-o", output)
    assert found.exit_code == 1
    wording.line(found.stdout, f"{one}, {same}, {two} ... 2")
    assert len(json_file.read(output).benchmarks) == 3


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("benchmarks", 0, "name"), []),
        (("benchmarks", 0, "extra_info", "model"), []),
        (("benchmarks", 0, "params", "spec"), 5),
        (("harness", "without_speed", 0, "reason"), None),
        (("harness", "slopes"), None),
        (("harness", "tunings"), [5]),
    ],
)
def test_a_field_of_another_type_is_named(
    place: tuple[str | int, ...], value: object, tmp_path: Path
) -> None:
    path = speeds(tmp_path / "1.json", result("numpy"), refused("torch"))
    content = json_file.read(path).plain()
    inner: Any = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(content))
    found = run("merge", path, "-o", tmp_path / "all.json")
    assert found.exit_code == 2, found.output
    assert "1.json" in found.stderr
    assert str(place[-1]) in found.stderr
