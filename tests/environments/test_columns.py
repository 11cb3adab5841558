"""Versions side by side: columns with a label, each in an interpreter of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.checking.record_file import read_records
from harness.checking.record_read import ended
from harness.environments.columns import choose, of_options, one
from harness.errors import UsageError
from harness.timing.request import BenchRequest, entries_from

HARNESS = str(Path(sys.executable).parent / "harness")
SPEC = "lesson6/three_char"
QUICK = ("--check", "values", "--dtype", "float32")
HERE = f"numpy@here={sys.executable}"
SAME = f"numpy@{np.__version__}={sys.executable}"


def harness_command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HARNESS, *words], capture_output=True, text=True, timeout=120)


@pytest.fixture
def interpreter(tmp_path: Path) -> str:
    """An interpreter that is another file, and has what this one has."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_several_columns_of_one_backend(tmp_path: Path, interpreter: str) -> None:
    path = tmp_path / "run.jsonl"
    other = f"numpy@other={interpreter}"
    columns = f"numpy,{HERE},{other}"
    ran = harness_command("check", SPEC, *QUICK, "--backend", columns, "--records", str(path))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for name in ("numpy@here", "numpy@other"):
        assert name in ran.stdout
    records = read_records(path, complete=True)
    (head,) = records.of_kind("head")
    assert head["columns"] == {
        "numpy@here": {"backend": "numpy", "interpreter": sys.executable},
        "numpy@other": {"backend": "numpy", "interpreter": interpreter},
    }
    cells = {cell.backend: result for cell, result in ended(records).items()}
    assert sorted(cells) == ["numpy", "numpy@here", "numpy@other"]
    signature, greeting = cells["numpy@other"].signature, cells["numpy@other"].greeting
    assert signature is not None
    assert greeting is not None
    assert signature["interpreter"] == interpreter
    assert greeting["numpy"] == np.__version__
    # Taken up: nothing is run again. With another interpreter behind a label, its cells are.
    again = ("check", SPEC, *QUICK, "--records", str(path), "--resume", "--json", "--backend")
    assert harness_command(*again, columns).returncode == 0
    assert len(read_records(path).of_kind("begin")) == 3
    told = harness_command(*again, f"numpy,{HERE},numpy@other={sys.executable}").stderr
    assert "1 cell is run again: interpreter" in told


def test_a_label_that_contradicts_the_version_is_an_error_that_says_both() -> None:
    wrong = f"numpy@1.0={sys.executable}"
    ran = harness_command("check", SPEC, *QUICK, "--backend", f"{SAME},{wrong}", "--json")
    assert ran.returncode == 3
    found = {r["backend"]: r for r in json.loads(ran.stdout)["results"]}
    assert found[SAME.partition("=")[0]]["verdict"] == "agree"
    assert found["numpy@1.0"]["detail"] == (
        f"numpy@1.0 was asked for, and numpy {np.__version__} answered from {sys.executable}"
    )


def test_known_differences_go_by_the_backend(tmp_path: Path) -> None:
    (tmp_path / "known_differences.yaml").write_text(
        "differences:\n  planted:\n    summary: planted\n    reason: planted\n    versions: all\n"
        "    link: https://example.org\n    match: {backend: numpy, check: loss}\n"
    )
    words = ("check", SPEC, *QUICK, "--backend", HERE, "--specs", str(tmp_path), "--json")
    found = {r["check"]: r["detail"] for r in json.loads(harness_command(*words).stdout)["results"]}
    assert "known difference planted has vanished" in found["loss"]


def test_what_is_given_for_a_column_or_for_all(interpreter: str) -> None:
    found = of_options((HERE, "numpy@b", "numpy"), (interpreter,))
    assert found.pythons == {
        "numpy@here": sys.executable,
        "numpy@b": interpreter,
        "numpy": interpreter,
    }
    found = of_options(("numpy@b", "numpy"), (f"numpy@b={interpreter}",))
    assert found.names == ("numpy@b", "numpy")
    assert found.pythons == {"numpy@b": interpreter}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("nunpy@2.6=/python", "unknown backend 'nunpy'; did you mean 'numpy'?"),
        ("numpy@=/python", "after the '@' stands a label"),
        ("numpy@a/b=/python", "after the '@' stands a label"),
        ("numpy@2.6=", "names no interpreter after the '='"),
        (
            "numpy@9.9",
            "no environment of numpy@9.9: make it with 'harness env numpy==9.9'",
        ),
    ],
)
def test_what_is_no_column(
    asked: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=re.escape(told)):
        choose((asked,))
    with pytest.raises(UsageError):
        harness.check(SPEC, asked)


def test_two_interpreters_of_one_column_are_an_error() -> None:
    with pytest.raises(UsageError, match=r"numpy@a has two interpreters: '/one' and '/two'"):
        choose(("numpy@a=/one", "numpy@a=/two"))
    with pytest.raises(UsageError, match="two interpreters"):
        choose(("numpy@a=/one",), {"numpy@a": "/two"})
    with pytest.raises(UsageError, match="two interpreters"):
        one("numpy@a=/one", "/two")


def test_the_functions_of_python_take_columns() -> None:
    report = harness.check(SPEC, ["numpy", HERE], checks="values", dtypes="float32")
    assert report.exit_code == 0
    assert {r.cell.backend for r in report.results} == {"numpy", "numpy@here"}
    inputs = {"c1": [1], "c2": [2], "c3": [3]}
    found = harness.run(SPEC, HERE, inputs=inputs, want="outputs")
    assert found.outputs


def test_a_bench_has_an_entry_for_each_column() -> None:
    request = BenchRequest(backends=("numpy", HERE), tune=True)
    entries = {entry.label: entry for entry in entries_from(request)}
    assert "numpy@here" in entries
    assert entries["numpy@here"].launch.python == sys.executable
    assert entries["numpy@here+malloc"].backend == "numpy@here"
