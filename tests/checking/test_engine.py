"""The engine: its plan, its exit codes, what it refuses, and the same from Python."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from record_lines import lines_of
from wording import Wording

import harness
from harness.checking.checks import CHECKS, THOROUGH
from harness.checking.engine import Engine
from harness.checking.request import Request, choose_checks
from harness.checking.runner import CheckEvents, Report
from harness.errors import UsageError
from harness.language.library import lesson6
from harness.results.cell import Cell, CellResult
from harness.results.findings import VERDICTS, Finding, Verdict
from harness.worker.process import kill_all

SPEC = "lesson6/simple_rnn"
CELL = Cell(SPEC, "numpy", "cpu", "float32", "native")


def report(*verdicts: Verdict | None, could_not_run: bool = False) -> Report:
    """A report of cells with one finding each; None is a cell without any."""
    return Report(
        [
            CellResult(CELL, [Finding("c", verdict=v)] if v else [], could_not_run=could_not_run)
            for v in verdicts
        ]
    )


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (report("agree", "agree"), 0),
        (report("agree", "known-difference", "unsupported"), 0),
        (report("agree", None), 0),
        (report("agree", "differ"), 1),
        (report("agree", "error"), 1),
        (report("differ", "crashed"), 3),
        (report("agree", "timeout"), 3),
        (report("agree", "out-of-memory"), 3),
        (report("error", could_not_run=True), 3),
        (report("unsupported"), 3),
        (report(None, None), 3),
        (report(), 3),
    ],
)
def test_exit_code(found: Report, code: int) -> None:
    assert found.exit_code == code


@pytest.mark.parametrize("verdict", VERDICTS)
def test_no_verdict_but_the_passing_ones_is_a_success(verdict: Verdict) -> None:
    passing = "not-applicable", "agree", "float32-precision", "known-difference", "unsupported"
    assert (report("agree", verdict).exit_code == 0) is (verdict in passing)


def test_plan_is_every_spec_on_every_backend_dtype_and_path() -> None:
    request = Request(backends=("numpy", "torch", "numpy"), paths=("native", "equations"))
    with Engine(request) as engine:
        cells = engine.cells()
    assert len(cells) == len(set(cells)) == 12 * 2 * 2 * 2
    assert {c.spec for c in cells} == set(lesson6())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"checks": ("nothing",)}, "check 'nothing'"),
        ({"checks": ()}, ""),
        ({"dtypes": ("float8",)}, "'float8'"),
        ({"dtypes": ()}, ""),
        ({"paths": ("nativ",)}, "'nativ' ... 'native'"),
        ({"paths": ()}, ""),
        ({"timeout": -1.0}, ""),
        ({"memory_limit": 0}, ""),
        ({"pythons": {"torch": "python"}}, "'torch'"),
        ({"sizes": {"hiden": 3}}, "'hidden'"),
    ],
)
def test_request_that_cannot_be_run_is_refused(
    options: dict[str, object], words: str, wording: Wording
) -> None:
    with wording.raises(UsageError, words):
        Engine(Request(specs=(SPEC,), backends=("numpy",), **options))  # type: ignore[arg-type]


def test_a_size_applies_to_the_specs_that_have_it(wording: Wording) -> None:
    """Of theano_rnn there is no embedding, and so no factors."""
    specs = (SPEC, "lesson6/theano_rnn")
    request = Request(specs, ("numpy",), ("float64",), sizes={"factors": 1}, checks=("values",))
    with Engine(request) as engine:
        wording(engine.applied, f"--size ... {SPEC}; 1")
        assert engine.run().exit_code == 0
        small = {name: engine.case(engine.specs[name], own=False).training.sizes for name in specs}
    assert small[SPEC]["factors"] == 1
    assert "factors" not in small[specs[1]]
    with wording.raises(UsageError, "2 ... 'factor'"):
        Engine(Request(specs, ("numpy",), sizes={"factor": 1}))


def test_checks_are_chosen_by_patterns_in_the_order_of_the_run() -> None:
    assert choose_checks(("*",), thorough=True) == tuple(CHECKS)
    assert choose_checks(("training*", "values")) == ("values", "training", "training-sgd")


def test_dear_checks_are_run_where_they_are_asked_for() -> None:
    assert set(CHECKS) - set(choose_checks(("*",))) == THOROUGH
    assert choose_checks(("*-sizes",)) == ("large-sizes",)
    assert choose_checks(("own-sizes",)) == ("own-sizes",)


def test_events_tell_the_run_in_order_and_the_worker_stays_warm() -> None:
    class Kept(CheckEvents):
        def __init__(self) -> None:
            self.told: list[str] = []

        def planned(self, cells: object) -> None:
            self.told.append("planned")

        def began(self, cell: Cell) -> None:
            self.told.append(f"began {cell.dtype}")

        def stage_began(self, cell: Cell, stage: str) -> None:
            if "primitives" not in stage:
                self.told.append(stage)

        def finding_added(self, cell: Cell, finding: Finding) -> None:
            self.told.append(finding.check)

        def ended(self, result: CellResult) -> None:
            self.told.append(f"ended {result.verdict}")

    events = Kept()
    request = Request(specs=(SPEC,), backends=("numpy",), checks=("inference",))
    with Engine(request, events) as engine:
        engine.run()
        assert engine.workers["numpy"].starts == 1
    stage = "inference, check 2 of 2"
    cells = [[f"began {d}", stage, "inference", "ended agree"] for d in ("float64", "float32")]
    assert events.told == ["planned", *cells[0], *cells[1]]


def test_cell_that_is_interrupted_gets_no_verdict(tmp_path: Path) -> None:
    """Its worker is killed from here, which must not be told as a crash."""
    records = tmp_path / "r.jsonl"
    request = Request(specs=(SPEC,), backends=("numpy",), records=records)

    class Interrupt(CheckEvents):
        def began(self, cell: Cell) -> None:
            if cell.dtype == "float32":
                threading.Timer(0.0, stop).start()

    with Engine(request, Interrupt()) as engine:

        def stop() -> None:
            engine.stopping.set()
            kill_all()

        found = engine.run()
    assert [r.cell.dtype for r in found.results] == ["float64"]
    assert [r["dtype"] for r in lines_of(records, "end")] == ["float64"]
    assert len(lines_of(records, "begin")) == 2


@pytest.mark.parametrize(("kind", "offered"), [("dtypes", ["float64"]), ("devices", ["tpu"])])
def test_what_a_backend_does_not_offer_is_unsupported(
    kind: str, offered: list[str], monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    request = Request(specs=(SPEC,), backends=("numpy",), dtypes=("float32",))
    with Engine(request) as engine:
        hello = engine.workers["numpy"].start().value
        monkeypatch.setattr(engine.workers["numpy"], "_hello", {**hello, kind: offered})
        (result,) = engine.run().results
    assert [f.verdict for f in result.findings] == ["unsupported"]
    wording.line(result.findings[0].detail, f"{offered[0]}")


def test_check_from_python_is_the_check_of_the_command_line() -> None:
    found = harness.check([SPEC], backends=["numpy"], checks=("values",))
    assert found.exit_code == 0
    assert len(found.results) == 2
