"""From a fault to the reproducer of the check that shows it, and back by replay."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from installed_plugins import install_plugin

from harness.checking.reproducer import save
from harness.checking.request import Request, make_case
from harness.cli import cli
from harness.language.model import load_spec
from harness.results.cell import Cell

PLUGIN = """
import itertools
import os
import numpy as np
from harness.runtime import plugins
from harness.runtime.hookspecs import hookimpl
from harness.runtime.session import Session

TABLES = {
    "extremes": lambda t: {"max": lambda *a, **k: 0 * t["max"](*a, **k)},
    "kinks": lambda t: {"less_equal": t["less"]},
    "loss": lambda t: {"log": lambda x: t["log"](x) * 1.001},
}
LAST, CALLS = 10, itertools.count()
METHODS = {
    "inference": ("forward", lambda phase, *_: phase == "inference"),
    "cotangent-gradients": ("gradients", lambda *a: a[-1] is not None),
    "partial-batch": ("gradients", lambda p, inputs, *_: len(min(inputs.values(), key=len)) == 2),
    "last-index": ("gradients", lambda p, inputs, *_: min(map(np.min, inputs.values())) == LAST),
    "training-sgd": ("step", lambda *_: True),
    "second-call": ("gradients", lambda *_: next(CALLS) == 1),
}

@hookimpl
def harness_backend(name):
    backend = plugins.load("numpy")
    backend.name, fault, right = name, os.environ["PLANTED"], backend.session
    if fault in TABLES:
        backend.primitives = {**backend.primitives, **TABLES[fault](backend.primitives)}

    def session(*programs, **choices):
        made = right(*programs, **choices) or Session(backend, *programs, **choices)
        if fault in METHODS:
            method, due = METHODS[fault]
            was = getattr(made, method)
            def wrong(*a):
                answer = was(*a)
                if not due(*a):
                    return answer
                results = answer[-1] if isinstance(answer, tuple) else answer
                results.update({n: x * 1.001 for n, x in results.items()})
                return answer
            setattr(made, method, wrong)
        return made

    backend.session = session
    return backend
"""
GROUPS_RUN = ("values", "cotangents", "inference", "training-sgd", "partial-batch")
GROUPS_RUN += ("extremes", "kinks", "embedding-rows")


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    """Check the backend ``planted`` with a fault, reproducers into a folder ``re producers``."""
    install_plugin(monkeypatch, tmp_path / "plugin", "harness_planted", PLUGIN, "planted")

    def check(fault: str) -> Result:
        monkeypatch.setenv("PLANTED", fault)
        wanted = [item for group in GROUPS_RUN for item in ("--check", group)]
        places = ["--reproducers", str(tmp_path / "re producers")]
        model = ["lesson6/simple_rnn", "--backend", "planted", "--dtype", "float64"]
        return CliRunner().invoke(cli, ["check", *model, *wanted, *places])

    return check


def printed(run: Result, start: str) -> list[str]:
    return [line for line in run.output.splitlines() if line.startswith(start)]


@pytest.mark.parametrize(
    "fault",
    [
        "extremes",
        "kinks",
        "loss",
        "inference",
        "cotangent-gradients",
        "partial-batch",
        "last-index",
    ],
)
def test_replay_shows_the_fault_that_was_found(
    planted: Callable[[str], Result], fault: str
) -> None:
    run = planted(fault)
    assert run.exit_code == 1, run.output
    (line,) = printed(run, "reproducer: ")
    command = shlex.split(line.removeprefix("reproducer: "))
    assert command[:2] == ["harness", "replay"]
    again = CliRunner().invoke(cli, command[1:])
    assert again.exit_code == 1, again.output
    verdict = f"lesson6/simple_rnn on planted, float64, check {fault}: differs; worst tensor: "
    assert again.output.splitlines()[-1].startswith(verdict)
    right = CliRunner().invoke(cli, [*command[1:], "--backend", "numpy"])
    assert right.exit_code == 0, right.output


def test_replay_sees_a_fault_that_is_not_in_every_pass(
    planted: Callable[[str], Result], tmp_path: Path
) -> None:
    case = make_case(load_spec("lesson6/simple_rnn"), Request(), own=False)
    cell = Cell("lesson6/simple_rnn", "planted", "cpu", "float64", "native")
    folder = save(tmp_path / "kept", cell, case, "gradients")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLANTED", "second-call")
        run = CliRunner().invoke(cli, ["replay", str(folder)])
    assert run.exit_code == 1, run.output
    assert "check gradients: differs in 1 of 3 passes; worst tensor: " in run.output


def test_a_fault_in_no_single_pass_has_no_reproducer(
    planted: Callable[[str], Result], tmp_path: Path
) -> None:
    run = planted("training-sgd")
    assert run.exit_code == 1, run.output
    assert not printed(run, "reproducer: ")
    assert printed(run, "no reproducer for a difference in ") == [
        "no reproducer for a difference in training-sgd; instead run harness check "
        "lesson6/simple_rnn --backend planted --dtype float64 --check training-sgd"
    ]
    assert not (tmp_path / "re producers").exists()


def test_a_folder_that_cannot_be_written_is_told_before_the_run(
    planted: Callable[[str], Result], tmp_path: Path
) -> None:
    (tmp_path / "re producers").write_text("", encoding="utf-8")
    run = planted("loss")
    assert run.exit_code == 2, run.output
    assert "cannot write reproducers to" in run.output
    assert "DIFFER" not in run.output
