"""Cells one by one: plain data that runs anywhere, on processes that stay warm."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from places import DOCS
from record_lines import lines_of
from small_models import ONE_LAYER
from wording import Wording

import harness
from harness.checking.engine import Engine
from harness.checking.history import records_of
from harness.checking.request import Request
from harness.checking.task import tasks
from harness.errors import UsageError

SPECS = ("lesson6/simple_rnn", "lesson6/keras_gru")
CHECKS = ("values", "inference")
# What a clock says, and what only a whole run knows of itself.
FLEETING = ("checksum", "seconds", "started", "arguments", "plan", "planned")
# The head of a check knows all its models, that of single cells the first one.
OF_CHECKS = ("models",)


def lines(path: Path) -> list[dict[str, object]]:
    """Read the lines of a record that cells write, without what is never the same twice."""
    return [
        {name: value for name, value in line.items() if name not in (*FLEETING, *OF_CHECKS)}
        for line in lines_of(path)
        if line["kind"] != "done"
    ]


def test_cells_are_the_plan_of_a_check() -> None:
    found = harness.cells(SPECS, ["numpy", "torch"], paths=["native", "equations"])
    with Engine(Request(SPECS, ("numpy", "torch"), paths=("native", "equations"))) as engine:
        assert [task.cell for task in found] == engine.cells()


def test_a_cell_is_plain_data() -> None:
    found = harness.cells(
        SPECS,
        "numpy",
        sizes={"hidden": 6, "batch": 2},
        environment={"numpy": {"A": "b"}},
        checks=CHECKS,
        timeout=50,
    )
    assert len({*found}) == 4
    for task in found:
        assert pickle.loads(pickle.dumps(task)) == task
        assert harness.Task.of(json.loads(json.dumps(task.record()))) == task
        assert task.request.checks == CHECKS
        assert task.request.environment == {"numpy": {"A": "b"}}
    with pytest.raises(AttributeError):
        found[0].source = "other"  # type: ignore[misc]


def test_the_lines_of_cells_are_those_of_a_check(tmp_path: Path) -> None:
    whole, single = tmp_path / "whole.jsonl", tmp_path / "single.jsonl"
    given = {"dtypes": "float64", "checks": CHECKS, "sizes": {"hidden": 6}}
    report = harness.check(SPECS, "numpy", records=whole, **given)  # type: ignore[arg-type]
    tasks = harness.cells(SPECS, "numpy", **given)  # type: ignore[arg-type]
    with harness.Workers(records=single) as workers:
        told = [harness.run_cell(task, workers) for task in tasks]
        (runner,) = workers._runners.values()
        assert [worker.starts for worker in runner.workers.values()] == [1]
    assert lines(single) == lines(whole)
    assert [r.verdict for r in told] == [r.verdict for r in report.results] == ["agree"] * 2
    written = [line for r in told for line in r.lines]
    assert json.loads(json.dumps(written)) == written
    assert all(pickle.loads(pickle.dumps(r)).lines == r.lines for r in told)
    # And the check takes up what the cells have left.
    request = Request(
        SPECS, ("numpy",), ("float64",), checks=CHECKS, sizes={"hidden": 6}, records=single
    )
    assert len(records_of(single, request).ended) == 2
    again = harness.check(SPECS, "numpy", records=single, resume=True, **given)  # type: ignore[arg-type]
    assert all(result.kept for result in again.results)


def test_a_size_of_one_spec_is_no_error_of_another(tmp_path: Path) -> None:
    found = harness.cells(
        ("lesson6/simple_rnn", "lesson6/theano_rnn"), "numpy", sizes={"factors": 1}, checks="loss"
    )
    assert [harness.run_cell(task).verdict for task in found[1:3]] == ["agree", "agree"]


def test_a_spec_by_its_file_runs_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(ONE_LAYER.format(name="mine"))
    monkeypatch.chdir(tmp_path)
    (task,) = harness.cells("mine.yaml", "numpy", dtypes="float64", checks="values")
    monkeypatch.chdir("/")
    assert harness.run_cell(task).agrees


def test_records_of_one_request_only(tmp_path: Path, wording: Wording) -> None:
    path = tmp_path / "run.jsonl"
    one, other = (
        harness.cells(SPECS[0], "numpy", dtypes="float64", checks="values", seed=seed)[0]
        for seed in (0, 1)
    )
    with harness.Workers(path) as workers:
        workers.run(one)
        before = path.read_bytes()
        with wording.raises(UsageError, "run.jsonl"):
            workers.run(other)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backend": 3}, "3"),
        ({"options": {"sed": 1}}, ""),
        ({"more": 1}, "'more'"),
        ({"dtype": "float99"}, "'float99'"),
        ({"path": "nativ"}, "'nativ' ... 'native'"),
        ({"options": {"folders": 5}}, ""),
        ({"options": {"sizes": [1]}}, ""),
        ({"options": {"checks": "values"}}, ""),
        ({"options": {"environment": {"numpy": 5}}}, "environment.numpy"),
        ({"options": {"thorough": "no"}}, ""),
        ({"options": {"timeout": {1}}}, "JSON"),
    ],
)
def test_damaged_cells_are_told(change: dict[str, object], words: str, wording: Wording) -> None:
    record = {**harness.cells(SPECS[0], "numpy")[0].record(), **change}
    with wording.raises(UsageError, words):
        harness.Task.of(record)
    with wording.raises(UsageError, "5"):
        harness.Task.of(5)  # type: ignore[arg-type]
    del record["spec"]
    with wording.raises(UsageError):
        harness.Task.of(record)


def test_a_cell_may_be_any_mapping() -> None:
    task = harness.cells(SPECS[0], "numpy")[0]
    with pytest.raises(UsageError, match="'7'"):
        harness.Task.of({**task.record(), 7: 1})  # type: ignore[dict-item]
    assert harness.Task.of(MappingProxyType(task.record())) == task


def test_a_cell_with_the_source_of_another_is_told(wording: Wording) -> None:
    cell, *_ = harness.cells(SPECS[0], "numpy")
    with harness.Workers() as workers, wording.raises(UsageError):
        harness.run_cell(harness.Task.of({**cell.record(), "source": SPECS[1]}), workers)


def test_a_history_is_of_a_run_and_not_of_its_cells(tmp_path: Path) -> None:
    request = Request(SPECS, ("numpy",), history=tmp_path / "known", fresh=True)
    with Engine(request) as engine:
        assert [task.options for task in tasks(engine)] == ["{}"] * 4


def test_the_page_s_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (DOCS / "many-machines.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace(', "torch"', ""), "many-machines.md", "exec"), {})
    assert capsys.readouterr().out.count(": agree (") == 2
    assert len(lines_of(tmp_path / "run.jsonl", "end")) == 2


def test_numbers_of_ones_own_are_in_no_cell(wording: Wording) -> None:
    with pytest.raises(TypeError):
        harness.cells(SPECS[0], weights={"W": np.zeros(3)})  # type: ignore[call-arg]
    with wording.raises(UsageError, "run_cell ... harness.cells ... 'numpy'"):
        harness.run_cell("numpy")  # type: ignore[arg-type]
