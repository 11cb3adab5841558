"""A run that was cut off is taken up: nothing that had ended is lost, or done again."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sampling import sampled
from wording import Wording

from harness.checking.engine import Engine
from harness.checking.history import records_of
from harness.checking.options import DECIDING
from harness.checking.request import Request
from harness.command.declared import Option
from harness.errors import UsageError
from harness.results.cell import CELL_FIELDS, Cell
from harness.results.file import read_records
from harness.results.lines import Begin, RequestRecord

HARNESS = Path(sys.executable).parent / "harness"
CHECKS = ("values", "inference")
REQUEST = Request(backends=("numpy",), checks=CHECKS)


def command(records: Path, *more: str) -> list[str]:
    checks = [part for name in CHECKS for part in ("--check", name)]
    return [str(HARNESS), "check", "--backend", "numpy", *checks, "--records", str(records), *more]


def verdicts(path: Path) -> dict[Cell, list[tuple[str, str]]]:
    return {
        cell: [(f.check, f.verdict) for f in result.findings]
        for cell, result in records_of(path, REQUEST).ended.items()
    }


@pytest.mark.parametrize("times", sampled((5, 10), (5,)))
def test_kills_equal_an_unbroken_run(times: int, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert subprocess.run(command(whole), capture_output=True).returncode == 0
    moments = random.Random(7)
    kills = 0
    for _ in range(times):
        process = subprocess.Popen(
            command(broken, "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(moments.uniform(0.5, 1.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    assert kills >= times // 3
    final = subprocess.run(command(broken, "--resume", "--json"), capture_output=True, text=True)
    assert final.returncode == 0, final.stderr
    assert verdicts(broken) == verdicts(whole)
    assert len(verdicts(whole)) == 24
    shown = {tuple(r[n] for n in CELL_FIELDS) for r in json.loads(final.stdout)["results"]}
    assert len(shown) == 24
    records = read_records(broken)
    begun = Counter(line.cell for line in records.of_kind(Begin))
    assert sum(begun.values()) - len(begun) <= kills


def test_cells_that_had_ended_are_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    request = Request(
        specs=("lesson6/simple_rnn",), backends=("numpy",), checks=CHECKS, records=path, resume=True
    )
    with Engine(request) as engine:
        first = engine.run()
    with Engine(request) as engine:
        second = engine.run()
        assert all(worker.starts == 0 for worker in engine.workers.values())
    assert [r.cell for r in second.results] == [r.cell for r in first.results]
    assert second.exit_code == 0
    for one, other in zip(first.results, second.results, strict=True):
        assert one.verdict == other.verdict
        assert one.error == pytest.approx(other.error)
        assert one.layers == other.layers


def test_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    base = {"specs": ("lesson6/simple_rnn",), "backends": ("numpy",), "records": path}
    with Engine(Request(**base, checks=CHECKS)) as engine:
        engine.run()
    for changed in ({"seed": 1}, {"sizes": {"hidden": 9}}, {"checks": ("values",)}):
        request = Request(**base, **{"checks": CHECKS, **changed}, resume=True)
        with Engine(request) as engine, pytest.raises(UsageError, match="another record file"):
            engine.run()


def test_what_differs_from_the_run_that_is_there_is_told(tmp_path: Path, wording: Wording) -> None:
    path = tmp_path / "run.jsonl"
    base = {"specs": ("lesson6/simple_rnn",), "backends": ("numpy",), "records": path}
    with Engine(Request(**base, checks=("values",))) as engine:
        engine.run()
    request = Request(**base, checks=("values",), seed=1, sizes={"hidden": 9}, resume=True)
    with Engine(request) as engine, pytest.raises(UsageError) as caught:
        engine.run()
    wording.line(caught.value, '{"hidden": 9} ... 0 ... 1')


@pytest.mark.parametrize("option", DECIDING, ids=lambda option: option.name)
def test_an_option_that_decides_results_is_a_field_of_records(option: Option) -> None:
    # Otherwise --resume and --history would reject the files of older versions.
    assert not RequestRecord.model_fields[option.name].is_required()


def test_resume_needs_records() -> None:
    with pytest.raises(UsageError, match="--resume needs --records FILE"):
        Engine(Request(backends=("numpy",), resume=True))
