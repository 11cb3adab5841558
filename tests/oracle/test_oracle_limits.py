"""The oracle, which runs in the parent, keeps to the time and the memory that a cell has."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from time_limits import over_within
from wording import Wording

from harness.checking.engine import Engine
from harness.checking.request import Request, make_case
from harness.checking.runner import Report
from harness.files import system
from harness.language.model import load_spec
from harness.oracle import time_limit
from harness.oracle.case import SECONDS, Case
from harness.oracle.oracle import TABLE, Oracle
from harness.oracle.time_limit import OracleFault, TimeLimit, spent, with_time_limit, within_limits

pytestmark = pytest.mark.alone

HARNESS = str(Path(sys.executable).parent / "harness")
SPEC = "lesson6/simple_rnn"
OTHER = "lesson6/three_char"


def run(**options: Any) -> Report:
    request = Request(**{"backends": ("numpy",), "checks": ("values",), **options})
    with Engine(request) as engine:
        return engine.run()


def slow(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have one primitive of the oracle take long."""
    right = TABLE["add"]

    def wrong(a: Any, b: Any) -> Any:
        time.sleep(seconds)
        return right(a, b)

    monkeypatch.setitem(TABLE, "add", wrong)  # type: ignore[arg-type]


def test_slow_oracle_costs_the_cells_of_its_spec_and_no_backend_s_name(
    monkeypatch: pytest.MonkeyPatch,
    wording: Wording,
) -> None:
    make = Engine.case

    def case(self: Engine, spec: Any, *, own: bool) -> Case:
        with monkeypatch.context() as patch:
            if spec.name == SPEC:
                slow(patch, 0.4)
            return make(self, spec, own=own)

    monkeypatch.setattr(Engine, "case", case)
    with over_within(20.0):
        report = run(specs=(SPEC, "lesson6/first_rnn"), timeout=1.5, jobs=1)
    assert report.exit_code == 3
    lost = [r for r in report.results if r.cell.spec == SPEC]
    good = [r for r in report.results if r.cell.spec != SPEC]
    assert [r.verdict for r in lost] == ["timeout"] * 2
    assert [r.verdict for r in good] == ["agree"] * 2
    for result in lost:
        (finding,) = result.findings
        assert finding.check == "oracle"
        wording.line(finding.detail, "1.5")
    # The second cell does not wait once more for what the first has waited for.
    assert lost[0].seconds >= 1.5
    assert lost[1].seconds < 1.0


def test_oracle_that_is_slow_in_a_check_loses_this_check(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Case.train

    def train(self: Case, *arguments: Any) -> Any:
        with within_limits():
            time.sleep(4.5)
            return right(self, *arguments)

    monkeypatch.setattr(Case, "train", train)
    checks = ("values", "training-sgd", "repeatability", "inference")
    report = run(specs=(SPEC,), dtypes=("float64",), checks=checks, timeout=4.0)
    (result,) = report.results
    found = {f.check: f.verdict for f in result.findings}
    assert found["training-sgd"] == "timeout"
    assert found["outputs"] == found["inference"] == "agree"
    # It needs no oracle, and the backend's own time is not used up.
    assert found["repeatability"] == "agree"
    assert report.exit_code == 3


def test_time_of_the_oracle_is_not_the_backend_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check whose oracle takes most of the time, and a backend that takes most of its own."""
    right = Case.gradients

    def gradients(self: Case, *arguments: Any) -> Any:
        with within_limits():
            time.sleep(2.0)
        return right(self, *arguments)

    with Engine(Request(specs=(SPEC,), backends=("numpy",), timeout=3.0)) as engine:
        (cell, *_) = engine.cells()
        for own in (False, True):
            engine.case(engine.specs[SPEC], own=own)
        engine.workers["numpy"].start()
        monkeypatch.setattr(Case, "gradients", gradients)
        result = engine.run_cell(cell, ("values", "inference"))
    assert {f.check: f.verdict for f in result.findings} == {
        "outputs": "agree",
        "loss": "agree",
        "gradients": "agree",
        "inference": "agree",
    }


# Sizes that no machine can take: what is refused, and before it costs anything.
TOO_LARGE = {
    "hidden": ({"hidden": 3_000_000}, "out-of-memory"),
    "the largest that the command line takes": ({"hidden": 2**31 - 1}, "out-of-memory"),
    "batch": ({"batch": 2**31 - 1}, "out-of-memory"),
    "time": ({"time": 2**31 - 1}, "out-of-memory"),
    "vocabulary": ({"vocab": 2**31 - 1}, "out-of-memory"),
    "factors": ({"factors": 2**31 - 1}, "out-of-memory"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_sizes_that_do_not_fit_are_refused_at_once(name: str) -> None:
    sizes, verdict = TOO_LARGE[name]
    before = system.resident_memory()
    with over_within(30.0):
        report = run(specs=(SPEC,), sizes=sizes, timeout=3e7)
    assert system.resident_memory() - before < 100 << 20
    assert [r.verdict for r in report.results] == [verdict] * 2
    assert all("GiB" in r.findings[0].detail for r in report.results)
    assert report.exit_code == 3


def test_sizes_that_take_too_long_are_refused_at_once(wording: Wording) -> None:
    with over_within(30.0):
        report = run(specs=(SPEC,), sizes={"hidden": 4000}, timeout=0.1)
    assert [r.verdict for r in report.results] == ["timeout"] * 2
    wording.line(report.results[0].findings[0].detail, "0.1")


def test_estimate_is_below_what_it_really_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is refused that could be done: the least time, of the sizes that are checked."""
    for name in (SPEC, OTHER, "lesson6/stateful_lstm"):
        began = time.monotonic()
        case = make_case(load_spec(name), Request(), own=True)
        case.gradients(case.material, "main")
        assert case.entries * SECONDS < time.monotonic() - began


def test_memory_that_runs_out_in_the_middle_is_told(
    monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    def greedy(a: Any, b: Any) -> Any:
        return np.ones(1 << 50)

    monkeypatch.setitem(TABLE, "matmul", greedy)  # type: ignore[arg-type]
    report = run(specs=(SPEC,), dtypes=("float64",))
    (result,) = report.results
    assert (result.verdict, result.could_not_run) == ("out-of-memory", True)
    wording(result.findings[0].detail)


def test_what_others_have_asked_for_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limit, "available_memory", lambda: 1000 << 20)
    go, done = threading.Event(), threading.Event()

    def other() -> None:
        with within_limits(500 << 20):
            go.set()
            done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert go.wait(10)
        with within_limits(200 << 20), within_limits(250 << 20):
            pass
        with pytest.raises(OracleFault, match=r"may use only 0\.3 GiB"), within_limits(400 << 20):
            pass
    finally:
        done.set()
        thread.join()
    with within_limits(700 << 20):
        pass
    assert time_limit._reserved_bytes == {}


def test_time_is_counted_once_and_only_while_at_work() -> None:
    with with_time_limit(TimeLimit(10.0)):
        time.sleep(0.05)
        assert spent() == 0.0
        with within_limits(), within_limits():
            time.sleep(0.05)
        assert 0.05 <= spent() < 0.5
    assert spent() == 0.0


def test_primitives_look_at_the_clock_and_at_the_end_of_the_run(wording: Wording) -> None:
    stopped = threading.Event()
    with with_time_limit(TimeLimit(100.0, stopped)):
        TABLE["exp"](1.0)
        with within_limits():
            TABLE["exp"](1.0)
            stopped.set()
            with wording.raises(OracleFault):
                Oracle("reversed").primitives["matmul"](np.ones((2, 2)), np.ones((2, 2)))
        TABLE["exp"](1.0)


def test_what_was_too_much_in_a_run_is_tried_again_in_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cases of checks that need no spec are kept for all runs of a process."""
    slow(monkeypatch, 0.1)
    case = Case(load_spec(OTHER), {}, 2, 3)

    def walk(limit: float, run: threading.Event) -> None:
        with with_time_limit(TimeLimit(limit, run)):
            case.forward("inference", case.material, "walked")

    stopped, short = threading.Event(), threading.Event()
    stopped.set()
    for limit, run in ((600.0, stopped), (0.1, short)):
        with pytest.raises(OracleFault) as first:
            walk(limit, run)
        with pytest.raises(OracleFault) as again:
            walk(limit, run)
        assert first.value is again.value
    walk(600.0, threading.Event())


def test_no_time_that_is_left_is_told_as_such(wording: Wording) -> None:
    with wording.raises(OracleFault, "0"):
        TimeLimit(0.0).check(0.0)
    with wording.raises(OracleFault, "2.0 ... 1"):
        TimeLimit(1.0).check(2.0)
    with wording.raises(OracleFault, "0.03 ... 0.02"):
        TimeLimit(0.02).check(0.03)


def test_available_memory_heeds_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < system.available_memory() < 1 << 50
    monkeypatch.setattr(system, "_allowed_by_groups", lambda: [1 << 20])
    assert system.available_memory() == 1 << 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "timeout", "code", "words"),
    [
        ("hidden=3000000", "3e7", 2, "GiB of memory or more"),
        ("hidden=4000", "0.1", 3, " s or more, but may use only 0.1 s"),
    ],
)
def test_bench_refuses_such_sizes(size: str, timeout: str, code: int, words: str) -> None:
    command = [HARNESS, "bench", SPEC, "--backend", "numpy", "--mode", "forward", "--batch", "2"]
    done = subprocess.run(
        [*command, "--time", "3", "--size", f"{size},5", "--timeout", timeout, "--rounds", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    shown = done.stdout + done.stderr
    assert done.returncode == code, shown
    assert words in shown.replace("\n", " ")
    assert "Traceback" not in shown
