"""The suite of third parties: its verdicts, its options and what it tells."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from places import SPECS as SHIPPED
from suite_runs import specs, suite, times

from harness.checking.checks import CHECKS, FINDINGS
from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.results.cell import CellResult
from harness.suite.cells import Cells

SPECS = ("lesson6/simple_rnn", "lesson6/theano_rnn")
SGD = "{optimizer: sgd, learning_rate: 0.001}"


def test_right_backend_passes_and_ids_can_be_read(tmp_path: Path) -> None:
    chosen = ("-k", "training or gradients or carried")
    arguments = ("--backend", "numpy", *specs(SPECS[0]), *chosen, "-v")
    run = suite(tmp_path, *arguments, forked=False)
    assert run.returncode == pytest.ExitCode.OK, run.stdout
    for line in (
        "test_check[numpy-lesson6/simple_rnn-float32-gradients] PASSED",
        "test_check[numpy-lesson6/simple_rnn-float64-training] PASSED",
        "test_check[numpy-lesson6/simple_rnn-float32-training] SKIPPED",
        "test_check[numpy-lesson6/simple_rnn-float32-carried-state] SKIPPED",
    ):
        assert line in run.stdout
    assert "failed" not in run.stdout


def test_skips_say_why(tmp_path: Path) -> None:
    run = suite(tmp_path, "--backend", "numpy", *specs(SPECS[1]), "-rs", "-k", "index or outputs")
    assert run.returncode == pytest.ExitCode.OK, run.stdout
    assert "index-zero does not apply to lesson6/theano_rnn in float32" in run.stdout


def test_wrong_result_fails_its_check_only_and_says_where(tmp_path: Path) -> None:
    run = suite(
        tmp_path,
        *("--backend", "faulty-numpy", "--dtype", "float64", *specs(SPECS[0])),
        *("-k", "outputs or loss or gradients"),
        faults={"lesson6/simple_rnn float64": "wrong_shape"},
    )
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    assert "1 failed, 3 passed" in run.stdout
    assert "outputs: differ: output.hidden_states: expected shape" in run.stdout


def test_stops_at_the_first_failure_if_asked(tmp_path: Path) -> None:
    faults = {f"{name} {dtype}": "exit_0" for name in SPECS for dtype in ("float64", "float32")}
    run = suite(tmp_path, "--backend", "faulty-numpy", *specs(*SPECS), "-x", faults=faults)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 failed" in run.stdout
    assert "exit code 0 during" in run.stdout


def test_selected_checks_run_alone(tmp_path: Path) -> None:
    faults = {"lesson6/simple_rnn float64": "exit_0"}
    arguments = ["--backend", "faulty-numpy", "--dtype", "float64", *specs(SPECS[0])]
    run = suite(tmp_path, *arguments, "-k", "inference", faults=faults)
    assert run.returncode == pytest.ExitCode.OK, run.stdout
    assert "1 passed" in run.stdout


def test_several_backends_in_one_run_are_told_apart(tmp_path: Path) -> None:
    arguments = ["--backend", "numpy,faulty-numpy", *specs(SPECS[0]), "--junitxml", "junit.xml"]
    run = suite(tmp_path, *arguments, "-v", "-k", "loss and float64")
    assert run.returncode == pytest.ExitCode.OK, run.stdout
    # As in a run of only one of them, so that files can be merged.
    assert list(times(tmp_path / "junit.xml")) == [
        "numpy-lesson6/simple_rnn-float64-loss",
        "faulty-numpy-lesson6/simple_rnn-float64-loss",
    ]


def test_names_have_the_path_where_it_is_not_the_usual_one(tmp_path: Path) -> None:
    arguments = ["--backend", "numpy", *specs(SPECS[0]), "--harness-path", "derived"]
    run = suite(tmp_path, *arguments, "--collect-only", "-q", "-k", "loss and float64")
    assert "test_check[numpy-lesson6/simple_rnn-float64-derived-loss]" in run.stdout


def test_a_backend_of_which_nothing_was_compared_is_no_success(tmp_path: Path) -> None:
    faults = {f"{SPECS[0]} float64": "wrong_shape"}
    arguments = ["--backend", "numpy", "--backend", "faulty-numpy", *specs(SPECS[0])]
    # Of numpy all is skipped: it has no moving statistics. The other one is not asked.
    run = suite(tmp_path, *arguments, "-k", "statistics or faulty and loss", faults=faults)
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, run.stdout


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a user's model of a user's layer, and the reports of a run on it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine" / "layers").mkdir(parents=True)
    (folder / "mine" / "models").mkdir()
    layer = (SHIPPED / "layers" / "simple_rnn.yaml").read_text()
    (folder / "mine" / "layers" / "leaky.yaml").write_text(
        layer.replace("layer: simple_rnn", "layer: leaky")
    )
    model = (SHIPPED / "models" / "lesson6" / "simple_rnn.yaml").read_text()
    for old, new in (
        ("model: lesson6/simple_rnn", "model: small"),
        ("layer: simple_rnn", "layer: leaky"),
        ("parameters: 102258\n", ""),
        ("hidden: 256", "hidden: 8"),
        # Without slots, a few steps show all of an optimizer.
        ("{optimizer: adam_epsilon_hat, learning_rate: 0.001, epsilon: 1.0e-8}", SGD),
    ):
        assert old in model
        model = model.replace(old, new)
    (folder / "mine" / "models" / "small.yaml").write_text(model)
    return folder


def own_suite(folder: Path, *more: str, **given: Any) -> subprocess.CompletedProcess[str]:
    arguments = ["--harness-specs", "mine", "--harness-spec", "small", "--dtype", "float64"]
    return suite(folder, *arguments, "--junitxml", "junit.xml", *more, **given)


def test_own_definitions_are_checked(own: Path) -> None:
    run = own_suite(own, "--backend", "numpy", "-rs")
    assert run.returncode == pytest.ExitCode.OK, run.stdout + run.stderr
    found = times(own / "junit.xml")
    assert len(found) == len(FINDINGS)
    # Each has its own time: the first does not bear that of all.
    total = sum(found.values())
    assert total > 0.5
    outputs, training = (found[f"numpy-small-float64-{c}"] for c in ("outputs", "training"))
    assert training > 0.01
    assert outputs < total - training
    assert sum(seconds > 0.001 for seconds in found.values()) > 8


def test_crash_fails_the_tests_of_its_cell_only(own: Path) -> None:
    run = own_suite(
        *(own, "--backend", "faulty-numpy", "--dtype", "float32"),
        faults={"small float32": "segfault"},
    )
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    cases = list(ET.parse(own / "junit.xml").iter("testcase"))
    assert len(cases) == 2 * len(FINDINGS)
    failed = {case.get("name", "") for case in cases if case.find("failure") is not None}
    assert failed
    assert {name.rpartition("32-")[0] for name in failed} == {"test_check[faulty-numpy-small-float"}
    assert "test_check[faulty-numpy-small-float32-gradients]" in failed
    assert not list(ET.parse(own / "junit.xml").iter("error"))
    assert "values: crashed: SIGSEGV" in run.stdout
    assert "the worker process ended during the check values" in run.stdout


def test_a_folder_that_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    run = suite(tmp_path, "--backend", "numpy", "--harness-specs", "gone")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "gone" in run.stderr
    assert "Traceback" not in run.stdout + run.stderr


def test_github_is_told(own: Path) -> None:
    variables = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(own / "summary.md")}
    run = own_suite(
        own,
        *("--backend", "numpy", "--backend", "faulty-numpy", "-k", "outputs or loss", "-n", "2"),
        faults={"small float64": "wrong_shape"},
        **variables,
    )
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    (line,) = (line for line in run.stdout.splitlines() if line.startswith("::"))
    title = "title=small on faulty-numpy%2C float64%2C native%3A outputs"
    assert re.match(rf"::error file=mine/\w+/\w+.yaml,line=\d+,{title}::", line)
    assert "outputs: differ: output.hidden_states: expected shape" in line
    text = (own / "summary.md").read_text()
    assert text.startswith("### harness suite: 1 failed, 3 passed\n")
    assert text.count("###") == 1  # of the two processes, none adds one of its own
    assert "| system | numpy | faulty-numpy |\n| --- | ---: | ---: |" in text
    assert "| small | 2 passed | 1 failed, 1 passed |" in text
    assert "- **small on faulty-numpy, float64, native: outputs**: " in text
    assert "::error" not in own_suite(own, "--backend", "numpy", "-k", "loss").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no backend is selected: add --backend NAME"),
        (["--backend", "nump"], "unknown backend 'nump'; did you mean 'numpy'?"),
        (["--backend", "numpy", *specs("lesson6/simple_rn")], "did you mean 'lesson6/simple_rnn'?"),
        (["--backend", "numpy", "--dtype", "float8"], "unknown dtype 'float8'"),
        (["--backend", "numpy", "--harness-path", "nativ"], "unknown path 'nativ'; did you mean"),
        (["--backend", ","], "--backend: a name is missing beside a comma of ','"),
        (
            ["--backend", "numpy", "--dtype", "float32,"],
            "--dtype: a name is missing beside a comma",
        ),
    ],
    ids=["no backend", "backend", "spec", "dtype", "path", "only a comma", "a comma at the end"],
)
def test_wrong_usage_is_an_error_in_words(tmp_path: Path, arguments: list[str], words: str) -> None:
    run = suite(tmp_path, *arguments)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert words in run.stderr
    assert "Traceback" not in run.stdout + run.stderr


def test_an_error_of_the_harness_fails_its_tests_and_not_the_session(tmp_path: Path) -> None:
    breaking = (
        "from harness.checking.engine import Engine\n\n\ndef run_cell(*_):\n"
        "    raise RuntimeError('it is broken')\n\n\nEngine.run_cell = run_cell\n"
    )
    arguments = ("--backend", "numpy", *specs(SPECS[0]), "-k", "loss or outputs")
    run = suite(tmp_path, *arguments, plugins={"breaking": breaking})
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    assert "INTERNALERROR" not in run.stdout + run.stderr
    assert "RuntimeError: it is broken" in run.stdout
    assert "4 failed" in run.stdout


def test_nothing_compared_is_no_success(tmp_path: Path) -> None:
    run = suite(tmp_path, "--backend", "numpy", "--device", "cuda", *specs(SPECS[0]), "-rs")
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, run.stdout
    assert "device 'cuda' is not offered" in run.stdout


def test_every_finding_of_the_engine_has_a_test() -> None:
    assert set(FINDINGS.values()) == set(CHECKS)
    # Between them these have every check: an embedding, a state that is carried, statistics; heads.
    given = {"dtypes": ("float64",), "backends": ("numpy",)}
    runs = (
        Request(
            specs=("lesson6/simple_rnn", "lesson6/stateful_lstm"),
            thorough=True,
            repeat=2,
            sizes={"hidden": 8},
            **given,
        ),
        Request(specs=("gpt",), checks=("large-counts",), **given),
    )
    found = set()
    for run in runs:
        with Engine(run) as engine:
            found |= {f.check for r in engine.run().results for f in r.findings}
    assert found == set(FINDINGS)


def test_finding_without_a_test_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(specs=SPECS[:1], backends=("numpy",), dtypes=("float64",))
    with Engine(request) as engine:
        cell = engine.cells()[0]
        right = engine.run_cell

        def with_another(*arguments: object) -> CellResult:
            result = right(*arguments)  # type: ignore[arg-type]
            result.findings[0].check = "other"
            return result

        monkeypatch.setattr(engine, "run_cell", with_another)
        with pytest.raises(LookupError, match="no test reports the findings other"):
            Cells(engine, [(cell, "loss")]).findings(cell, "loss")
