"""The table, the words below it, and who stands apart."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from wording import Wording

from harness.checking import report as reports
from harness.checking.runner import Report
from harness.oracle.tolerance import Deviation
from harness.output.table import show
from harness.results.cell import Cell, CellResult
from harness.results.findings import MARKS, VERDICTS, Finding, Verdict
from harness.results.findings import digits as digits_of

OUT = np.linspace(0.1, 0.9, 6).reshape(2, 3)


def result(
    backend: str = "numpy",
    error: float | None = 1e-8,
    verdict: Verdict = "agree",
    check: str = "outputs",
    spec: str = "lesson6/simple_rnn",
    dtype: str = "float32",
    path: str = "native",
    **given: Any,
) -> CellResult:
    deviations = [] if error is None else [Deviation("output.y", error, 1e-7, 8e-7)]
    finding = Finding(check, deviations, verdict=verdict)
    return CellResult(Cell(spec, backend, "cpu", dtype, path), [finding], **given)


def printed(report: Report, width: int = 160, **console: Any) -> str:
    file = io.StringIO()
    show(Console(file=file, width=width, **console), *reports.make_tables(report))
    return file.getvalue()


# --- Digits and table -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "digits"),
    [(0.0, 16.0), (1e-20, 16.0), (1e-8, 8.0), (0.5, 0.30103), (1.0, 0.0), (5.0, 0.0)],
)
def test_digits(error: float, digits: float) -> None:
    assert digits_of(result(error=error).findings) == pytest.approx(digits, abs=1e-5)


def test_digits_are_of_the_worst_and_of_measuring_checks_only() -> None:
    found = result(error=1e-8)
    found.findings.append(Finding("gradients", [Deviation("g", 1e-5, 1e-7, 8e-7)]))
    found.findings.append(Finding("extremes", [Deviation("e", 1.0, 1e-7, 8e-7)]))
    assert digits_of(found.findings) == pytest.approx(5.0)
    assert digits_of(result(error=float("inf")).findings) == 0.0
    assert digits_of(result(error=None).findings) is None
    assert digits_of(result(check="extremes").findings) is None


def test_digits_of_a_failing_cell_are_those_of_the_check_that_fails() -> None:
    found = result(error=1e-8)
    off = [Deviation("g", 1e-3, 1e-7, 8e-7)]
    found.findings.append(Finding("large-sizes", off, verdict="differ", sizes="time 35"))
    assert reports.cell_text(found) == "DIFFER 3.0"
    assert found.findings[1].detail.endswith("; at time 35")
    # The number of a check of edges counts only if no other fails.
    for check, error in (("saturation", 1.0), ("gradients", 1e-4)):
        off = [Deviation("g", error, 1e-7, 8e-7)]
        found.findings.append(Finding(check, off, verdict="differ"))
    assert reports.cell_text(found) == "DIFFER 4.0"
    # Of several checks that measure, the first counts: the text below the table begins with it.
    found.findings.append(Finding("statistics", [Deviation("s", 0.2, 1e-7, 8e-7)]).judge())
    assert reports.cell_text(found) == "DIFFER 4.0"
    crashed = result(error=1e-8)
    crashed.findings.append(Finding("large-sizes", verdict="crashed"))
    assert reports.cell_text(crashed) == "CRASHED"


def test_every_verdict_has_a_mark() -> None:
    assert set(MARKS) == set(VERDICTS)
    assert reports.cell_text(result()) == "8.0"
    assert reports.cell_text(result(verdict="differ", error=0.005)) == "DIFFER 2.3"
    assert reports.cell_text(result(verdict="crashed", error=None)) == "CRASHED"
    marks = [text for verdict, text in MARKS.items() if verdict != "agree"]
    assert all(marks)
    assert len(set(marks)) == len(marks)


@pytest.fixture
def mixed() -> Report:
    return Report(
        [
            result("numpy", 1e-16, dtype="float64"),
            result("numpy", 1e-7),
            result("torch", 1e-3, "differ", dtype="float64"),
            result("torch", None, "crashed"),
            result("numpy", 1e-15, spec="lesson6/three_char", dtype="float64"),
        ]
    )


def test_the_piped_table_has_no_escape_codes(mixed: Report) -> None:
    text = printed(mixed)
    assert "\x1b" not in text
    assert "\x1b" in printed(mixed, force_terminal=True)
    assert "[/]" not in text
    rows = [" ".join(line.split()) for line in text.splitlines() if "lesson6" in line]
    assert rows == [
        "│ lesson6/simple_rnn │ 16.0 | 7.0 │ DIFFER 3.0 | CRASHED │",
        "│ lesson6/three_char │ 15.0 | - │ - | - │",
    ]
    header = next(line for line in text.splitlines() if "system" in line)
    assert header.index("numpy") < header.index("torch")


NAMES = ("numpy", "torch", "jax", "keras", "keras-torch", "keras-jax")


@pytest.mark.parametrize("paths", [("native",), ("native", "equations", "derived")])
@pytest.mark.parametrize("trouble", ["agree", "out-of-memory"])
@pytest.mark.parametrize("width", [160, 120, 80, 60, 40, 30])
def test_nothing_of_the_table_is_cut(width: int, trouble: Verdict, paths: Sequence[str]) -> None:
    """Every word and number of the wide table is in the narrow one, as often, and whole."""
    variants = [(d, p) for d in ("float64", "float32") for p in paths]
    cells = [
        result(b, 10.0**-n, trouble if b == "jax" else "agree", spec=s, dtype=d, path=p)
        for s in ("lesson6/three_char", "lesson6/theano_gru_combined")
        for n, b in enumerate(NAMES)
        for d, p in variants
    ]
    wide, narrow = (printed(Report(cells), w) for w in (1000, width))
    assert max(map(len, narrow.splitlines())) <= width
    assert "…" not in narrow
    digits = re.findall(r"[0-9]+[.][0-9]", wide)
    assert len(digits) == len(cells)
    assert Counter(re.findall(r"[0-9]+[.][0-9]", narrow)) == Counter(digits)
    joined = re.sub(r"-\s*\n\s*", "-", narrow)
    for word in {"three_char", "theano_gru_combined", "numpy", "torch", "float32", *paths[1:]}:
        assert word in joined, word
    assert narrow.count("MEMORY") == wide.count("MEMORY")


def test_at_80_columns_a_dtype_has_a_row_of_its_own() -> None:
    cells = [result(b, 1e-7, dtype=d) for b in NAMES for d in ("float64", "float32")]
    rows = [line.split() for line in printed(Report(cells), 80).splitlines()]
    assert ["lesson6/simple_rnn", "float64", *["7.0"] * 6] in rows
    assert ["lesson6/simple_rnn", "float32", *["7.0"] * 6] in rows


def test_the_title_names_the_variants(mixed: Report) -> None:
    assert reports.ResultTable(mixed.results).title.endswith("oracle: float64 | float32")
    both = Report([result(path="native"), result(path="equations")])
    assert reports.ResultTable(both.results).title.endswith(
        "oracle: float32 native | float32 equations"
    )


# --- Words ------------------------------------------------------------------------------------


def test_a_paragraph_for_each_cell_that_does_not_pass(mixed: Report, wording: Wording) -> None:
    wrong = mixed.results[2]
    wrong.location = "forward: first differs at g of layer lstm"
    crashed = mixed.results[3]
    ended = "the worker process ended during the check values"
    crashed.findings = [
        Finding("values", faults=["killed by SIGSEGV"], verdict="crashed"),
        Finding("shapes", faults=[ended], verdict="not-run"),
        Finding("kinks", faults=[ended], verdict="not-run"),
    ]
    lines = reports.describe_problems(mixed)
    wording(
        lines,
        "lesson6/simple_rnn ... torch, float64, native: differ ... forward"
        " ... differs ... layer lstm ... outputs: differ: output.y ... 1.00e-03"
        " ... 1e+04 ... 8.00e-07 ... lesson6/simple_rnn"
        " ... torch, float32, native ... SIGSEGV",
    )
    assert reports.describe_problems(Report([result(), result(verdict="known-difference")])) == []


def test_only_the_first_checks_are_shown_in_full(mixed: Report, wording: Wording) -> None:
    wrong = mixed.results[2]
    wrong.findings = [
        Finding(name, faults=["off"], verdict="differ") for name in ("outputs", "loss", "kinks")
    ]
    shown = reports.describe_problems(Report([wrong]))
    wording(shown[1:], "outputs: differ ... loss: differ ... --verbose")
    assert "  kinks: differ: off" in reports.describe_problems(Report([wrong]), most=None)


def test_details_have_a_line_for_every_check(wording: Wording) -> None:
    found = result(layers={"rnn": "torch.nn.RNN"}, version="torch 2.9")
    found.findings.append(Finding("aliasing", held=4))
    head, *lines = reports.describe_details(Report([found]))
    wording.line(head, "native (torch 2.9 ... torch.nn.RNN): agree")
    assert len(lines) == 2
    wording.line(lines[0], "1.00e-08, 0.1 ... output.y")
    assert lines[1].endswith("4 conditions held")


def test_known_differences_are_told_once(wording: Wording) -> None:
    fault = "known difference adds-one: It adds one."
    results = [result(verdict="known-difference") for _ in range(3)]
    for r in results:
        r.findings[0].excuse = fault
    wording(reports.list_known_differences(Report(results)))
    results[0].findings[0].excuse = ""
    assert reports.list_known_differences(Report(results[:1])) == []


def test_the_summary_counts_cells_verdicts_and_comparisons(mixed: Report, wording: Wording) -> None:
    mixed.results[0].findings.append(Finding("aliasing", held=1200))
    text = reports.summarise(replace(mixed, seconds=61.4))
    wording(text, "5 ... 3 agree, 1 differ, 1 ... 1,204 ... 61")
    wording(reports.summarise(Report([])), "0 ... 0 ... 0")


def test_long_output_is_cut_with_a_count(wording: Wording) -> None:
    assert reports.first_lines(["a", "b"], 2) == ["a", "b"]
    cut = reports.first_lines(["a", "b", "c", "d"], 2)
    wording(cut, "2 ... --verbose")


# --- Outliers ---------------------------------------------------------------------------------


def three(off: Any, **given: Any) -> Report:
    """Two backends that agree but for rounding, and a third."""
    outputs = {"numpy": OUT, "torch": OUT * (1 + 1e-7), "jax": off}
    return Report(
        [
            result(b, verdict="differ" if b == "jax" else "agree", outputs={"output.y": a}, **given)
            for b, a in outputs.items()
        ]
    )


@pytest.mark.parametrize(
    "off", [OUT + 0.1, OUT * 1e6, np.full_like(OUT, np.nan), np.full_like(OUT, np.inf), OUT[:1]]
)
def test_the_one_that_is_off_is_named(off: Any, wording: Wording) -> None:
    (line,) = reports.find_outliers(three(off))
    wording.line(line, "lesson6/simple_rnn, float32: jax")
    wording.line(line, "1.0e-07")


def test_no_outlier_where_all_are_near_or_all_pass_or_are_too_few() -> None:
    assert reports.find_outliers(three(OUT * (1 - 1e-7))) == []
    passing = three(OUT + 0.1)
    for r in passing.results:
        r.findings[0].verdict = "known-difference"
    assert reports.find_outliers(passing) == []
    assert reports.find_outliers(Report(three(OUT + 0.1).results[1:])) == []


def test_two_camps_have_no_outlier() -> None:
    found = three(OUT + 0.1)
    found.results.append(
        result("keras", verdict="differ", outputs={"output.y": OUT * (1 + 1e-7) + 0.1})
    )
    assert reports.find_outliers(found) == []


def test_paths_are_apart(wording: Wording) -> None:
    """A backend's own path does not stand for it on the other."""
    native, equations = three(OUT + 0.1), three(OUT * (1 - 1e-7), path="equations")
    (line,) = reports.find_outliers(Report([*native.results, *equations.results]))
    wording.line(line, "jax")
