"""Versions side by side: columns with a label, each in an interpreter of its own."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import warm_commands
from record_lines import lines_of
from wording import Wording

import harness
from harness.command.options import variables
from harness.environments import console
from harness.environments.columns import choose, choose_from_options, choose_one
from harness.environments.installed import NoEnvironment
from harness.environments.request import EnvironmentRequest, read_request
from harness.errors import UsageError
from harness.results.file import read_records
from harness.results.lines import Head
from harness.timing.request import BenchRequest, entries_from

SPEC = "lesson6/three_char"
QUICK = ("--check", "values", "--dtype", "float32")
HERE = f"numpy@here={sys.executable}"
SAME = f"numpy@{np.__version__}={sys.executable}"


def harness_command(*words: str) -> subprocess.CompletedProcess[str]:
    return warm_commands.run(words)


@pytest.fixture
def interpreter(tmp_path: Path) -> str:
    """An interpreter that is another file, and has what this one has."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_several_columns_of_one_backend(tmp_path: Path, interpreter: str, wording: Wording) -> None:
    path = tmp_path / "run.jsonl"
    other = f"numpy@other={interpreter}"
    columns = f"numpy,{HERE},{other}"
    ran = harness_command("check", SPEC, *QUICK, "--backend", columns, "--records", str(path))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for name in ("numpy@here", "numpy@other"):
        assert name in ran.stdout
    records = read_records(path)
    (head,) = records.of_kind(Head)
    assert head.columns == {
        "numpy@here": {"backend": "numpy", "interpreter": sys.executable},
        "numpy@other": {"backend": "numpy", "interpreter": interpreter},
    }
    cells = {cell.backend: result for cell, result in records.ended.items()}
    assert sorted(cells) == ["numpy", "numpy@here", "numpy@other"]
    signature, greeting = cells["numpy@other"].signature, cells["numpy@other"].greeting
    assert signature is not None
    assert greeting is not None
    assert signature["interpreter"] == interpreter
    assert greeting["numpy"] == np.__version__
    # Taken up: nothing is run again. With another interpreter behind a label, its cells are.
    again = ("check", SPEC, *QUICK, "--records", str(path), "--resume", "--json", "--backend")
    assert harness_command(*again, columns).returncode == 0
    assert len(lines_of(path, "begin")) == 3
    told = harness_command(*again, f"numpy,{HERE},numpy@other={sys.executable}").stderr
    wording.line(told, "1")


def test_a_label_that_contradicts_the_version_is_an_error_that_says_both(wording: Wording) -> None:
    wrong = f"numpy@1.0={sys.executable}"
    ran = harness_command("check", SPEC, *QUICK, "--backend", f"{SAME},{wrong}", "--json")
    assert ran.returncode == 3
    found = {r["backend"]: r for r in json.loads(ran.stdout)["results"]}
    assert found[SAME.partition("=")[0]]["verdict"] == "agree"
    wording(found["numpy@1.0"]["detail"], f"numpy@1.0 ... {np.__version__} ... {sys.executable}")


def test_known_differences_go_by_the_backend(tmp_path: Path, wording: Wording) -> None:
    (tmp_path / "known_differences.yaml").write_text(
        "differences:\n  planted:\n    summary: planted\n    reason: planted\n    versions: all\n"
        "    link: https://example.org\n    match: {backend: numpy, check: loss}\n"
    )
    words = ("check", SPEC, *QUICK, "--backend", HERE, "--specs", str(tmp_path), "--json")
    found = {r["check"]: r["detail"] for r in json.loads(harness_command(*words).stdout)["results"]}
    wording(found["loss"])


def test_what_is_given_for_a_column_or_for_all(interpreter: str) -> None:
    found = choose_from_options((HERE, "numpy@b", "numpy"), (interpreter,))
    assert found.pythons == {
        "numpy@here": sys.executable,
        "numpy@b": interpreter,
        "numpy": interpreter,
    }
    found = choose_from_options(("numpy@b", "numpy"), (f"numpy@b={interpreter}",))
    assert found.names == ("numpy@b", "numpy")
    assert found.pythons == {"numpy@b": interpreter}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("nunpy@2.6=/python", "'nunpy' ... 'numpy'"),
        ("numpy@=/python", ""),
        ("numpy@a/b=/python", ""),
        ("numpy=9.9", "numpy==9.9"),
        ("numpy>=9.9", "torch, torch==2.12 ... torch@2.12"),
        ("numpy@2.6=", ""),
        (
            "numpy@9.9",
            "numpy@9.9 ... harness ... numpy==9.9",
        ),
    ],
)
def test_what_is_no_column(
    asked: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with wording.raises(UsageError, told):
        choose((asked,))
    with pytest.raises(UsageError):
        harness.check(SPEC, asked)


def test_two_interpreters_of_one_column_are_an_error(wording: Wording) -> None:
    with wording.raises(UsageError, "numpy@a ... '/one' ... '/two'"):
        choose(("numpy@a=/one", "numpy@a=/two"))
    with pytest.raises(UsageError, match="two interpreters"):
        choose(("numpy@a=/one",), {"numpy@a": "/two"})
    with pytest.raises(UsageError, match="two interpreters"):
        choose_one("numpy@a=/one", "/two")


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


def test_a_version_has_two_spellings_wherever_a_column_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for spelling in ("numpy@9.9", "numpy==9.9", "numpy==9.9.*"):
        assert choose_one(f"{spelling}=/python") == ("numpy@9.9", "/python")
        assert choose_from_options((spelling,), (f"{spelling}=/python",)).pythons == {
            "numpy@9.9": "/python"
        }
    assert variables(["numpy==9.9:A=1"], lambda: ()) == {"numpy@9.9": {"A": "1"}}
    assert read_request(["numpy@9.9"]).requirements == read_request(["numpy==9.9"]).requirements
    # All that is missing is told at once, with the command that makes it.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NoEnvironment) as missing:
        choose(("numpy==9.9", "numpy==9.8"))
    assert missing.value.columns == ("numpy@9.9", "numpy@9.8")
    for version in ("9.9", "9.8"):
        assert f"'harness env numpy=={version}'" in str(missing.value)
    assert "--backend" not in str(missing.value)
    # What is no version, or is installed, is told before anything is made.
    for column, words in (
        ("numpy==abc", "'abc' in numpy@abc is not a version"),
        (f"numpy=={np.__version__}", f"{np.__version__} is installed: write numpy, "),
    ):
        with pytest.raises(UsageError, match=re.escape(words)) as told:
            choose(("numpy==9.9", column))
        assert not isinstance(told.value, NoEnvironment)


def test_an_upgrade_offers_to_make_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = ("upgrade", "numpy==9.8", "numpy==9.9")
    ran = harness_command(*words)
    assert ran.returncode == 2
    assert "harness env numpy==9.8" in ran.stderr
    assert "harness env numpy==9.9" in ran.stderr
    # At a terminal it asks; nothing is made of another answer than yes.
    made: list[str] = []

    def make(wanted: EnvironmentRequest, python: str, tell: object, force: bool) -> None:
        made.append(wanted.column)
        python_of = tmp_path / "backend-comparison-harness" / "environments" / wanted.column
        python_of.mkdir(parents=True)
        (python_of / "environment.json").write_text(
            json.dumps(
                {"column": wanted.column, "requirements": [*wanted.requirements], "versions": {}}
                | {"python": "3.11", "made": "today", "harness": "0.1.0"}
            )
        )

    monkeypatch.setattr(console.make, "make", make)
    for answer, expected in (("\n", []), ("y\n", ["numpy@9.8", "numpy@9.9"])):
        monkeypatch.setattr(console.sys, "stdin", Typed(answer))
        monkeypatch.setattr(console.sys, "stderr", Typed(""))
        with nullcontext() if expected else pytest.raises(NoEnvironment):
            assert console.choose_or_make(words[1:]).names == ("numpy@9.8", "numpy@9.9")
        assert made == expected
        assert "make numpy==9.8 and numpy==9.9 now" in sys.stderr.getvalue()


class Typed(io.StringIO):
    """What is typed at a terminal, or shown on one."""

    def isatty(self) -> bool:
        return True
