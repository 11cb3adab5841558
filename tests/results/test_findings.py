"""Verdicts: vacuous findings are errors, the gravest wins, and the detail says why."""

from __future__ import annotations

import itertools

import pytest
from wording import Wording

from harness.oracle.tolerance import Deviation
from harness.results.cell import Cell, CellResult
from harness.results.findings import BROKEN, PASSING, VERDICTS, Finding, Verdict, gravest

GOOD = Deviation("good", 1e-8, 1e-8, 8e-8)
CELL = Cell("lesson6/simple_rnn", "numpy", "cpu", "float32", "native")


def bad(name: str, error: float = 1e-3) -> Deviation:
    return Deviation(name, error, 1e-8, 8e-8)


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [
        (Finding("c", [GOOD]), "agree"),
        (Finding("c", held=1), "agree"),
        (Finding("c", [GOOD], held=1), "agree"),
        (Finding("c", [GOOD, bad("b")]), "differ"),
        (Finding("c", [GOOD], ["wrong"]), "differ"),
        (Finding("c", held=3, faults=["wrong"]), "differ"),
        (Finding("c", [Deviation("n", float("nan"), 1e-8, 8e-8)]), "differ"),
        (Finding("c", [Deviation("s", 0.0, 1.0, 8.0, "expected shape [1]")]), "differ"),
    ],
)
def test_verdict(finding: Finding, verdict: Verdict) -> None:
    assert finding.judge().verdict == verdict


def test_what_rounding_alone_changes_is_not_compared(wording: Wording) -> None:
    void = Deviation("v", float("inf"), float("inf"), float("inf"))
    finding = Finding("c", [void]).judge()
    assert (finding.verdict, finding.worst) == ("not-applicable", None)
    wording(finding.detail)
    noisy = Finding("c", [Deviation("v", 1.0, 0.5, 8.0)]).judge()
    wording(noisy.detail, "5.0e-01")
    assert Finding("c", [void, GOOD]).judge().verdict == "agree"
    assert Finding("c", [void, bad("b")]).judge().verdict == "differ"
    shape = Deviation("s", float("inf"), 1.0, 16.0, "expected shape [1]")
    assert Finding("c", [shape]).judge().verdict == "differ"
    assert Finding("c", note="examples are not independent").judge().verdict == "not-applicable"


def test_the_worst_of_many_tensors_is_among_those_shown() -> None:
    finding = Finding("c", [bad(name) for name in "abcd"] + [bad("worst", 0.5)]).judge()
    assert [part.split()[0] for part in finding.detail.split("; ")] == ["a", "b", "worst", "and"]
    assert "and 2 more tensors" in finding.detail


def test_nothing_compared_is_an_error() -> None:
    finding = Finding("c").judge()
    assert finding.verdict == "error"
    assert finding.detail == "nothing was compared"
    assert finding.worst is None


def test_verdicts_are_ordered_and_divided() -> None:
    assert set(VERDICTS) == PASSING | BROKEN | {"differ"}
    assert not PASSING & BROKEN
    assert max(map(VERDICTS.index, PASSING)) < min(
        VERDICTS.index(v) for v in VERDICTS if v not in PASSING
    )


def test_the_gravest_is_the_later_in_the_order() -> None:
    for one, other in itertools.combinations(VERDICTS, 2):
        assert gravest([one, other]) == gravest([other, one]) == other
    assert gravest(["agree", "crashed", "differ"]) == "crashed"
    assert gravest([]) == "not-run"


def test_a_cell_shows_the_gravest_and_its_first_fault() -> None:
    findings = [
        Finding("a", verdict="agree"),
        Finding("b", verdict="known-difference"),
        Finding("c", [bad("x", 1e-3)], verdict="differ"),
        Finding("d", [bad("y", 1e-2)], verdict="error"),
    ]
    result = CellResult(CELL, findings)
    assert result.verdict == "error"
    assert result.first_fault is findings[2]
    assert result.error == 1e-2
    assert result.ratio == 1e-2 / 1e-8
    assert CellResult(CELL).verdict == "not-run"
    assert CellResult(CELL).error is None
    assert CellResult(CELL, findings[:2]).first_fault is None


def test_a_sentence_that_others_follow_has_no_stop_of_its_own(wording: Wording) -> None:
    known = "known difference x: It has no digits left."
    wording(Finding("c", [], [known]).detail)
    assert Finding("c", [], [known, "b"]).detail == f"{known[:-1]}; b"


def test_detail_has_faults_first_then_three_tensors_then_a_count(wording: Wording) -> None:
    deviations = [GOOD, *(bad(f"t{n}") for n in range(5))]
    detail = Finding("c", deviations, ["state was not reset"]).judge().detail
    parts = detail.split("; ")
    wording(parts[0])
    assert [part.partition(" ")[0] for part in parts[1:4]] == ["t0", "t1", "t2"]
    wording.line(parts[1], "t0 ... 1.00e-03 ... 1e+05")
    assert parts[4:] == ["and 2 more tensors"]
    assert Finding("c", deviations[:5]).judge().detail.endswith("; and 1 more tensor")
    assert "more tensor" not in Finding("c", deviations[:4]).detail
    assert Finding("c", [GOOD]).detail == ""


def test_worst_is_among_all_tensors() -> None:
    assert Finding("c", [GOOD, bad("b"), bad("a", 1.0)]).worst == bad("a", 1.0)
