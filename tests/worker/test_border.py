"""What a backend returns is looked at where it comes in: a broken promise is a finding of its own
cell, names what was broken, and costs nobody else's."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wrong
from click.testing import CliRunner

from harness.check import checks, run_cell
from harness.check.cell import CellResult
from harness.check.checks.context import Context
from harness.check.events import Report
from harness.check.records import read_records
from harness.check.report import problems
from harness.check.request import Request
from harness.check.resume import ended_cells
from harness.check.run import Engine
from harness.cli import cli

SPEC = "lesson6/three_char"
CHECKS = ("values", "inference", "training-sgd", "pipeline", "initial-values", "aliasing")
# Fault -> the check that names it, and how.
NAMED: Mapping[str, tuple[str, str]] = {
    "numpy-none": ("values", "numpy() returned None for "),
    "numpy-list": ("values", "numpy() returned a value of type list for "),
    "primitive-none": ("values", "returned None; a tensor is wanted (in the primitive tanh([3, 7]"),
    "primitive-signature": ("values", "argument 'shape' (in the primitive broadcast_to([1], "),
    "primitive-dtype": ("primitives", "add([3, 7], [7]) gave dtype float32; float64 is right"),
    "equal-floats": ("primitives", "equal([2, 3], [3]) gave dtype float64; bool is right"),
    "execute-empty": ("pipeline", "what execute() made returned no loss, step, "),
    "dict": (
        "start",
        "harness_backend returned a value of type dict; a harness.extend.Backend",
    ),
    "trace-lists": ("outputs", "output.h1: nothing was returned"),
}
# The same for those that are only run with all tests.
SIBLINGS: Mapping[str, tuple[str, str]] = {
    "numpy-text": ("primitives", "tensor() gave dtype <U32; float64 is right"),
    "numpy-object": ("primitives", "numpy() returned an array of dtype object for what tensor()"),
    "tensor-narrow": ("primitives", "tensor() gave dtype float32; float64 is right"),
    "tensor-none": ("primitives", "tensor() gave a NoneType whose shape is no tuple of numbers"),
    "primitive-list": ("primitives", "matmul([3, 5], [5, 7]) gave a list whose shape is no tuple"),
    "primitive-raises": ("values", "list index out of range (in the primitive expand_dims([3], "),
    "primitive-hidden-dtype": ("primitives", "keepdims=True) gave dtype float32; float64 is right"),
    "primitive-axes": ("primitives", "axes=(1, 0)) gave shape [7, 11]; [11, 7] is right"),
    "primitive-shape": ("primitives", "sum([3], axis=(0,), keepdims=False) gave shape [1]; [] is"),
    "less-equal-bytes": ("primitives", "less_equal([3, 7], []) gave dtype uint8; bool is right"),
    "one-hot-integers": (
        "primitives",
        "one_hot([3], classes=11, dtype='float64') gave dtype int64",
    ),
    "table-list": ("start", "primitives returned a value of type list; a dictionary of functions"),
    "table-number": ("start", "'exp' of the table is a value of type float; a function is wanted"),
    "compile-none": ("values", "compile() returned None; a function is wanted"),
    "compiled-none": (
        "values",
        "what compile() made returned None; a dictionary of tensors by name",
    ),
    "compiled-list": ("inference", "what compile() made returned a value of type list; a dict"),
    "execute-none": ("pipeline", "execute() returned None; a function is wanted"),
    "execute-list": ("pipeline", "what execute() made returned a value of type list; a dictionary"),
    "advance-none": ("pipeline", "advance() returned None; a function is wanted"),
    "several-text": ("pipeline", "several() returned a value of type str; a function is wanted"),
    "gradient-text": ("values", "value_and_gradient() returned a value of type str; a function"),
    "gradient-single": ("values", "returned a value of type tuple; results and gradients are"),
    "session-text": (
        "open",
        "session() returned a value of type str; a harness.extend.Session, or None,",
    ),
    "claim-text": ("open", "claim() of embedding returned a value of type str; a Native, or None"),
    "claim-packing": ("open", "the packing of claim() of embedding returned None; a Packing is"),
    "claim-few": ("inference", "Nothing returned 0 results; 1 results are wanted"),
    "optimizer-text": ("open", "claim_optimizer() returned a value of type str; a NativeOptimizer"),
    "optimizer-single": ("training-sgd", "update() returned a value of type dict; the next state"),
    "versions-list": ("start", "versions() returned a value of type list; a dictionary of texts"),
    "versions-many": ("start", "versions() returned 1,000 texts; 100 are allowed"),
    "fused-number": ("start", "fused returned a value of type int; a dictionary of functions"),
    "primitive-surrogate": ("primitives", r"tanh raised RuntimeError: odd \ud800 text"),
    "devices-text": ("start", "devices() returned 'cpu'; a list of names is wanted"),
    "dtypes-none": ("start", "dtypes() returned None; a list of names is wanted"),
    "settings-list": (
        "pipeline",
        "settings() returned a value of type list; a dictionary of texts",
    ),
    "paths-list": ("open", "answer['paths']: Input should be a valid dictionary, found ['native']"),
    "forward-none": ("inference", "answer: Input should be a valid dictionary, found None"),
    "forward-list": ("inference", "answer: Input should be a valid dictionary, found [1.0]"),
    "forward-odd": ("inference", "answer[1]: Input should be a valid string, found 1"),
    "gradients-odd": ("gradients", "gradient.embed_1.table: nothing was returned"),
    "step-empty": ("training-sgd", "step 1: loss: nothing was returned"),
    "read-empty": ("initial-values", "answer['parameters']: Field required"),
    "read-odd": ("training-sgd", "answer[0]['slots']['m']: Input should be a valid dictionary"),
    "trace-odd": ("outputs", "output.h1: nothing was returned"),
    "no-name": ("start", "Plain.name is no text; the name of its entry point is wanted"),
    "other": ("start", "harness_backend returned a value of type SimpleNamespace; a harness."),
    "device-lost": ("values", "CUDA error: an illegal memory access was encountered"),
    "poisoned": ("values", "RuntimeError: no more"),
}

# Those that the tests of the other commands are for.
ELSEWHERE = ("forward-flat", "forward-empty", "forward-texts", "read-narrow", "read-integers")
ELSEWHERE += ("second-path-lost", "memory-huge")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin as this process sees it."""
    monkeypatch.syspath_prepend(wrong.FOLDER)


def request(*faults: str, **changes: Any) -> Request:
    names = tuple(f"wrong-{fault}" for fault in faults)
    given = {"specs": (SPEC,), "dtypes": ("float64",), "checks": CHECKS, "jobs": 2, **changes}
    return Request(backends=names, environment={n: wrong.variables() for n in names}, **given)


def run(*faults: str, **changes: Any) -> Report:
    with Engine(request(*faults, **changes)) as engine:
        return engine.run()


@functools.cache
def matrix(faults: tuple[str, ...]) -> dict[str, CellResult]:
    """A run of many faults beside each other, and of a backend that is right."""
    report = run(*faults, "nothing")
    assert report.exit_code != 0
    return {r.cell.backend.removeprefix("wrong-"): r for r in report.results}


def named(fault: str, among: Mapping[str, tuple[str, str]]) -> None:
    """A fault is found by the check that must name it, and no fault of the harness is."""
    result = matrix(tuple(among))[fault]
    check, words = among[fault]
    assert result.verdict in ("differ", "error"), result
    (finding,) = [f for f in result.findings if f.check == check]
    assert words in finding.detail
    assert not [f.detail for f in result.findings if "a fault of its own" in f.detail]


@pytest.mark.parametrize("fault", NAMED)
def test_a_broken_promise_is_named(fault: str) -> None:
    named(fault, NAMED)


@pytest.mark.slow
@pytest.mark.parametrize("fault", SIBLINGS)
def test_every_other_broken_promise_is_named(fault: str) -> None:
    named(fault, SIBLINGS)


def test_the_backend_beside_them_agrees() -> None:
    result = matrix(tuple(NAMED))["nothing"]
    assert result.verdict == "agree"
    # The check of the primitives was not asked for, and shows only where it fails.
    assert "primitives" not in [f.check for f in result.findings]


def test_every_fault_of_the_plugin_is_expected() -> None:
    import harness_wrong

    expected = {*NAMED, *SIBLINGS, *ELSEWHERE, "nothing"}
    assert expected == {*harness_wrong.FAULTS, "dict", "no-name", "other"}


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        ("primitive-dtype", "primitive: add([3, 7], [7]) gave dtype float32; float64 is right"),
        (
            "trace-lists",
            "forward: first differs at y of layer embed_1 (specs/layers/embedding.yaml:9): "
            "expected an array, found list",
        ),
    ],
)
def test_the_first_value_of_a_wrong_kind_is_the_place(fault: str, place: str) -> None:
    assert matrix(tuple(NAMED))[fault].location == place


def test_a_wrong_primitive_fails_whatever_is_asked_for() -> None:
    (result,) = run("equal-floats", checks=("values",)).results
    assert [(f.check, f.verdict) for f in result.findings if f.verdict != "agree"] == [
        ("primitives", "differ")
    ]
    assert result.verdict == "differ"


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


def test_a_traceback_is_in_the_report_and_in_the_record(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    asked = request("primitive-raises", records=path, checks=("values",))
    with Engine(asked) as engine:
        report = engine.run()
    told = "\n".join(problems(report, most=None))
    raised = "in <lambda>\n"
    assert "traceback of primitives:" in told
    assert raised in told
    assert "IndexError: list index out of range" in told
    assert "--verbose shows the traceback" in "\n".join(problems(report))
    kept = {r["check"]: r["traceback"] for r in read_records(path).of_kind("result")}
    assert raised in kept["values"]
    (again,) = ended_cells(path, asked).values()
    assert [f.traceback for f in again.findings] == [
        f.traceback for f in report.results[0].findings
    ]


def test_what_python_says_as_it_crashes_is_kept() -> None:
    import faulty

    faults = {f"{SPEC} float64": "segfault"}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(faulty.FOLDER)
        asked = Request(
            specs=(SPEC,),
            backends=("faulty-numpy",),
            dtypes=("float64",),
            checks=("values",),
            environment={"faulty-numpy": faulty.variables(faults)},
        )
        with Engine(asked) as engine:
            (result,) = engine.run().results
    finding = next(f for f in result.findings if f.verdict == "crashed")
    assert finding.traceback.startswith("Fatal Python error: Segmentation fault")
    assert "harness_faulty.py" in finding.traceback


def invoke(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """A command of ``harness``, whose workers find the plugin too."""
    monkeypatch.setenv("PYTHONPATH", wrong.variables()["PYTHONPATH"])
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
) -> None:
    monkeypatch.setitem(checks.CHECKS, "values", broken_check)  # type: ignore[arg-type]
    (result,) = run("nothing", checks=("values", "inference")).results
    first, second = result.findings
    assert first.verdict == "error"
    assert "a fault of its own: KeyError: 'a slip of the harness'" in first.detail
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
    assert problems(report)
