"""A broken promise costs its own cell and nobody else's, and its traceback is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import plugin_broken_promises
import pytest
from broken_promises import SPEC, request, run
from click.testing import CliRunner
from record_lines import lines_of
from wording import Wording

from harness.checking import checks, run_cell
from harness.checking.checks.context import Context
from harness.checking.engine import Engine
from harness.checking.history import records_of
from harness.checking.report import describe_problems
from harness.checking.request import Request
from harness.cli import cli


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin as this process sees it."""
    monkeypatch.syspath_prepend(plugin_broken_promises.FOLDER)


@pytest.mark.parametrize("fault", ["device-lost", "poisoned"])
def test_what_fails_for_ever_costs_its_own_cell_only(fault: str) -> None:
    """Every call of the process fails after the first failure, until the process is new."""
    with Engine(request(fault, dtypes=("float64", "float32"))) as engine:
        lost, next_one = engine.run().results
        starts = engine.workers[f"wrong-{fault}"].starts
    assert (lost.verdict, next_one.verdict) == ("error", "agree")
    assert starts == 2
    later = [f.verdict for f in lost.findings][2:]
    # A fault of the device ends the process at once; another one with its cell.
    assert ("not-run" in later, "error" in later) == (
        (True, False) if fault == "device-lost" else (False, True)
    )


def test_a_traceback_is_in_the_report_and_in_the_record(tmp_path: Path, wording: Wording) -> None:
    path = tmp_path / "run.jsonl"
    asked = request("primitive-raises", records=path, checks=("values",))
    with Engine(asked) as engine:
        report = engine.run()
    told = "\n".join(describe_problems(report, most=None))
    raised = "in <lambda>\n"
    assert "traceback of primitives:" in told
    assert raised in told
    wording.line(told, "IndexError")
    assert "--verbose shows the traceback" in "\n".join(describe_problems(report))
    kept = {r["check"]: r["traceback"] for r in lines_of(path, "result")}
    assert raised in kept["values"]
    (again,) = records_of(path, asked).ended.values()
    assert [f.traceback for f in again.findings] == [
        f.traceback for f in report.results[0].findings
    ]


def test_what_python_says_as_it_crashes_is_kept(wording: Wording) -> None:
    import plugin_faulty_cells

    faults = {f"{SPEC} float64": "segfault"}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(plugin_faulty_cells.FOLDER)
        asked = Request(
            specs=(SPEC,),
            backends=("faulty-numpy",),
            dtypes=("float64",),
            checks=("values",),
            environment={"faulty-numpy": plugin_faulty_cells.variables(faults)},
        )
        with Engine(asked) as engine:
            (result,) = engine.run().results
    finding = next(f for f in result.findings if f.verdict == "crashed")
    wording.line(finding.traceback, "Python error: Segmentation")
    assert "harness_faulty.py" in finding.traceback


def invoke(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """A command of ``harness``, whose workers find the plugin too."""
    monkeypatch.setenv("PYTHONPATH", plugin_broken_promises.variables()["PYTHONPATH"])
    return CliRunner().invoke(cli, arguments)


def test_verbose_shows_it_and_json_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("check", SPEC, "--backend", "wrong-primitive-raises", "--dtype", "float64")
    command += ("--check", "values")
    assert "in <lambda>" in invoke(monkeypatch, *command, "--verbose").stdout
    assert "in <lambda>" not in invoke(monkeypatch, *command).stdout
    found = json.loads(invoke(monkeypatch, *command, "--json").stdout)
    assert any("in <lambda>" in line["traceback"] for line in found["results"])


def broken_check(context: Context) -> Any:
    raise KeyError("a slip of the harness")


def test_a_fault_of_the_harness_costs_one_check_and_is_named_as_such(
    monkeypatch: pytest.MonkeyPatch,
    wording: Wording,
) -> None:
    monkeypatch.setitem(checks.CHECKS, "values", broken_check)  # type: ignore[arg-type]
    (result,) = run("nothing", checks=("values", "inference")).results
    first, second = result.findings
    assert first.verdict == "error"
    wording.line(first.detail, "KeyError: 'a")
    assert "in broken_check" in first.traceback
    assert second.verdict == "agree"


def test_a_fault_of_the_localiser_costs_one_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_the_way(*_: Any) -> None:
        raise AttributeError("no way")

    monkeypatch.setattr(run_cell, "Expectations", lose_the_way)
    report = run("trace-lists", "nothing")
    lost, other = report.results
    assert [f.check for f in lost.findings][-1] == "harness"
    assert "in lose_the_way" in lost.findings[-1].traceback
    assert (lost.verdict, other.verdict) == ("error", "agree")
    assert report.exit_code == 3


def test_a_case_that_the_harness_cannot_make_costs_its_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = Engine.case

    def case(self: Engine, spec: Any, *, own: bool) -> Any:
        if spec.name.endswith("simple_rnn"):
            raise ZeroDivisionError("no case")
        return right(self, spec, own=own)

    monkeypatch.setattr(Engine, "case", case)
    report = run("nothing", specs=("lesson6/simple_rnn", SPEC), checks=("inference",))
    lost, other = report.results
    assert (lost.verdict, lost.could_not_run, other.verdict) == ("error", True, "agree")
    assert "ZeroDivisionError: no case" in lost.findings[0].detail


def test_odd_outputs_are_no_outliers_and_break_no_report() -> None:
    """Three backends of a spec, one of which returns no arrays."""
    report = run("forward-odd", "nothing", "equal-floats")
    assert all(isinstance(a, np.ndarray) for r in report.results for a in r.outputs.values())
    assert describe_problems(report)
