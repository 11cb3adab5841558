"""Checks of a model that is huge at the sizes that the user has set."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from places import TESTS

from harness.checking import request as request_module
from harness.checking.engine import Engine
from harness.checking.request import Request, case_sizes, make_huge_case, where_huge
from harness.language.model import load_spec
from harness.results.cell import CellResult
from harness.results.findings import Finding

SPEC = "lesson6/simple_rnn"


@pytest.fixture(autouse=True)
def huge_from_10000_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_module, "HUGE", 10_000)


def run(**options: object) -> tuple[Mapping[str, Finding], CellResult, list[str]]:
    asked = {"backends": ("numpy",), "dtypes": ("float32",), "sizes": {"hidden": 250}, **options}
    with Engine(Request(specs=(SPEC,), **asked)) as engine:  # type: ignore[arg-type]
        (result,) = engine.run().results
        return {finding.check: finding for finding in result.findings}, result, engine.applied


def test_only_own_sizes_uses_huge_sizes() -> None:
    spec = load_spec(SPEC)
    asked = Request(sizes={"hidden": 250})
    assert where_huge(spec, asked) == "asked"
    for own in (False, True):
        assert case_sizes(spec, asked, own=own) == case_sizes(spec, Request(), own=own)
    assert make_huge_case(spec, asked).training.sizes["hidden"] == 250
    few = Request(sizes={"hidden": 20})
    assert where_huge(spec, few) == ""
    assert case_sizes(spec, few, own=False)[0]["hidden"] == 20


def test_a_changed_huge_size_runs_a_cell_of_the_history_again() -> None:
    signatures = []
    for hidden in (250, 250, 251):
        request = Request(specs=(SPEC,), backends=("numpy",), sizes={"hidden": hidden})
        with Engine(request) as engine:
            signatures.append(dict(engine.signature(engine.cells()[0])))
    first, again, other = signatures
    assert first == again
    assert [name for name in first if first[name] != other[name]] == ["sizes"]


def test_all_checks_run_and_own_sizes_too() -> None:
    findings, result, notes = run()
    assert result.verdict == "agree"
    assert "hidden 250" in findings["own-sizes"].sizes
    # Two outputs, the loss and seven gradients, and the same gradients and loss of a step.
    assert findings["own-sizes"].comparisons >= 18
    assert "values" not in findings  # only its findings, e.g. outputs
    assert "outputs" in findings
    assert len([note for note in notes if SPEC in note]) == 1


def test_own_sizes_is_added_to_the_checks_that_the_user_names() -> None:
    findings, _, _ = run(checks=("values",))
    assert {"outputs", "own-sizes"} <= {*findings}
    assert "shapes" not in findings


@pytest.mark.parametrize("hidden", [250, 20])
def test_a_fault_from_200_units_differs_only_in_own_sizes(
    monkeypatch: pytest.MonkeyPatch, hidden: int
) -> None:
    monkeypatch.syspath_prepend(TESTS / "mutants")
    monkeypatch.setenv("PYTHONPATH", str(TESTS / "mutants"))
    findings, _, _ = run(
        backends=("mutants-1",), device="rounded-from200-units", sizes={"hidden": hidden}
    )
    differing = [check for check, finding in findings.items() if finding.verdict == "differ"]
    assert differing == (["own-sizes"] if hidden == 250 else [])


def test_a_model_that_is_huge_at_all_sizes_runs_few_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_module, "HUGE", 100)
    findings, result, notes = run(sizes={})
    assert result.verdict == "agree"
    assert {*findings} == {"own-sizes", "functions", "optimizer-steps"}
    assert len([note for note in notes if SPEC in note]) == 1
