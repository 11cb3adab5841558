"""A finding says at which point, and a primitive that is missing costs the models that need it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import plugin_broken_promises
import pytest
from broken_promises import SPEC, run
from click.testing import CliRunner, Result
from record_lines import lines_of
from wording import Wording

from harness.checking.checks.context import describe_first_difference
from harness.cli import cli
from harness.oracle.tolerance import deviation

POINT = "sqrt(inf) gave nan, expected inf ("
ERF_IN_FLOAT64 = "needs erf (erf(x), the error function"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin as this process sees it, and its workers."""
    monkeypatch.syspath_prepend(plugin_broken_promises.FOLDER)
    monkeypatch.setenv("PYTHONPATH", plugin_broken_promises.variables()["PYTHONPATH"])


def check(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["check", *arguments, "--jobs", "1"])


# --- The point --------------------------------------------------------------------------------


def test_a_function_that_is_off_is_named_with_its_argument(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    command = (SPEC, "--backend", "wrong-sqrt-in-lanes", "--dtype", "float32")
    command += ("--check", "functions", "--records", str(path))
    shown = " ".join(check(*command).output.split())
    (line,) = [r for r in lines_of(path, "result") if r["verdict"] == "differ"]
    for told in (shown, line["detail"]):
        assert POINT in told
        assert " of 939 entries off, right in a tensor of 1 entry)" in told
    # What the interpreter walks and what a plan runs, each by itself.
    assert line["detail"].count(POINT) == 2


def judged(found: Any, expected: Any) -> str:
    dtype = str(np.asarray(found).dtype)
    return str(deviation("y", np.asarray(found), np.asarray(expected), 1.0, 0.0, dtype))


@pytest.mark.parametrize(
    ("found", "expected", "told"),
    [
        (
            [[1.0, 2.0], [3.0, 4.5]],
            [[1.0, 2.0], [3.0, 4.0]],
            "[1, 1] ... 4.5 ... 4 (1 ... 4",
        ),
        ([1.0, np.nan], [1.0, 2.0], "[1] ... 2 (1 ... 2"),
        ([np.inf, 9.0], [1.0, 2.0], "[0] ... 1 (2 ... 2"),
        ([np.nan, np.inf], [np.nan, 1.0], "[1] ... 1 (1 ... 2"),
        (3.0, 4.0, "3 ... 4"),
        # What is alike in six digits has all of them.
        ([1.000000001], [1.0], "[0] ... 1.000000001 ... 1.0"),
    ],
)
def test_a_tensor_that_is_off_names_its_worst_entry(
    found: Any, expected: Any, told: str, wording: Wording
) -> None:
    wording.line(judged(found, expected), told)


def test_a_tensor_that_agrees_names_no_entry() -> None:
    assert not deviation("y", np.ones(3), np.ones(3), 1.0, 0.0, "float64").point


def test_what_should_have_the_same_bits_names_the_first_entry_that_has_not(
    wording: Wording,
) -> None:
    first = np.array([[0.0, np.nan], [2.0, 3.0]])
    assert describe_first_difference(first, first.copy()) == ""
    later = np.array([[0.0, np.nan], [2.0, 4.0]])
    wording(describe_first_difference(later, first), "[1, 1] ... 4 ... 3 (1 ... 4")
    assert (
        describe_first_difference(later[0], first) == describe_first_difference(None, first) == ""
    )


# --- A primitive that a framework lacks in one dtype ------------------------------------------


def verdicts(fault: str) -> Mapping[tuple[str, str], tuple[str, str]]:
    report = run(
        fault,
        specs=(SPEC, "mlp"),
        dtypes=("float64", "float32"),
        checks=("values", "functions"),
        jobs=1,
    )
    return {
        (r.cell.spec, r.cell.dtype): (
            r.verdict,
            next((f.detail for f in r.findings if f.verdict != "agree"), ""),
        )
        for r in report.results
    }


def test_what_is_lacking_in_one_dtype_makes_only_its_models_unsupported_there() -> None:
    found = verdicts("erf-lacking")
    verdict, words = found.pop(("mlp", "float64"))
    assert verdict == "unsupported"
    assert ERF_IN_FLOAT64 in words
    assert "not offer in float64" in words
    assert {verdict for verdict, _ in found.values()} == {"agree"}, found


def test_what_is_offered_and_raises_is_a_fault_that_says_how_to_declare_it(
    wording: Wording,
) -> None:
    (result,) = run("erf-undeclared", checks=("values",)).results
    (finding,) = [f for f in result.findings if f.check == "primitives"]
    assert finding.verdict == "differ"
    wording.line(finding.detail, "NotImplementedError")
    wording.line(finding.detail, "float64 ... lacks()")


def test_convolutions_run_on_a_backend_without_windows() -> None:
    checks = ("values", "pipeline-forward", "functions")
    (result,) = run("windows-lacking", specs=("lenet",), checks=checks).results
    assert (result.verdict, {f.verdict for f in result.findings}) == ("agree", {"agree"})


# --- What a backend raises --------------------------------------------------------------------


def test_an_exception_of_a_backend_is_one_line_and_the_rest_with_verbose(wording: Wording) -> None:
    command = (SPEC, "--backend", "wrong-talkative", "--dtype", "float64", "--check", "values")
    shown, verbose = check(*command).output, check(*command, "--verbose").output
    wording.line(shown, "AssertionError ... array([[1., 1")
    assert "(in the primitive tanh([3, 7]" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) < 450
    assert "so there" not in shown
    assert "so there" in verbose


def test_a_framework_that_cannot_make_a_tensor_could_not_be_run() -> None:
    report = run("no-device", checks=("values", "functions"))
    assert report.exit_code == 3
    (result,) = report.results
    assert result.could_not_run
    assert [(f.check, f.verdict) for f in result.findings] == [("open", "error")]
    assert "RuntimeError: no usable devices" in result.findings[0].detail
    assert not result.blame
