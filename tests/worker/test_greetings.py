"""Who answers as a worker starts, and what is said of a start that fails."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from process_faults.support import launch
from wording import Wording

from harness.worker.launch import Launch
from harness.worker.worker import Worker, pip_requirement


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("mute", "versions() returned None; expected"),
        ("odd_devices", "devices() returned 'cpu'; expected"),
        ("nameless", "malformed: answer['backend']"),
        ("another_form", "type list; expected"),
    ],
)
def test_odd_greeting_is_an_error_of_the_start(name: str, cause: str) -> None:
    with Worker(launch("greeter", handler=f"process_faults.identities:{name}")) as worker:
        outcome = worker.start()
        assert (outcome.status, outcome.start_failed) == ("error", True)
        assert worker.pid is None
        assert cause in outcome.cause


def test_greeting_tells_who_serves() -> None:
    options = {"environment": {"KERAS_BACKEND": "jax", "TF_X": "1", "OTHER": "2"}}
    with Worker(launch("mine", "process_faults.identities:honest", **options)) as worker:
        hello = worker.start().value
        assert worker.hello == hello
        assert hello["backend"] == "mine"
        assert hello["pid"] == worker.pid
        assert hello["versions"] == {"framework": "1.2.3"}
        assert hello["devices"] == ["cpu"]
        assert hello["environment"]["KERAS_BACKEND"] == "jax"
        assert hello["environment"]["TF_X"] == "1"
        assert "OTHER" not in hello["environment"]
        assert worker.call("speak").value == "mine speak"


START_FAILURES = {
    "impostor": (
        "error",
        "backend 'victim' was requested, but 'another' answered: in the module of the plugin's "
        "entry point 'victim', set name = 'victim' in the class of the backend",
    ),
    "missing_framework": ("error", "ModuleNotFoundError: No module named 'framework'"),
    "leave": ("error", "SystemExit: no device found"),
    "crash": ("crashed", "SIGABRT, after printing "),
    "hang": ("timeout", "no answer in 0.5 s"),
}


@pytest.mark.parametrize("handler", START_FAILURES)
def test_start_that_fails_is_told_from_a_call_that_fails(handler: str, wording: Wording) -> None:
    limit = 0.5 if handler == "hang" else 30.0
    options = launch(handler=f"process_faults.identities:{handler}", start_timeout=limit)
    with Worker(options) as worker:
        outcome = worker.call("speak")
        status, cause = START_FAILURES[handler]
        assert outcome.status == status
        assert outcome.cause.startswith(cause)
        assert outcome.start_failed
        assert worker.pid is None
        if handler == "missing_framework":
            assert "in missing_framework" in outcome.traceback
            wording(outcome.log)


def test_unknown_backend_is_a_failed_start() -> None:
    with Worker(Launch("no-such-backend")) as worker:
        outcome = worker.start()
        assert outcome.start_failed
        assert outcome.cause.startswith("UnknownBackend: unknown backend 'no-such-backend'")


def test_interpreter_that_is_not_there_is_a_failed_start(wording: Wording) -> None:
    with Worker(launch(python="/nowhere/python")) as worker:
        outcome = worker.start()
        assert outcome.start_failed
        wording(outcome.cause, "'/nowhere/python'")


def test_interpreter_without_the_harness_is_told_how_to_get_it(
    tmp_path: Path, wording: Wording
) -> None:
    """A real one, in an environment of its own."""
    folder = tmp_path / "my env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = str(folder / "bin" / "python")
    with Worker(Launch("torch", python=python)) as worker:
        outcome = worker.start()
    assert outcome.start_failed
    wording.line(outcome.log, "'harness'")
    own = distribution("backend-comparison-harness")
    _, _, command = outcome.cause.partition("; that interpreter has no harness; install it with: ")
    words = shlex.split(command)
    assert words[:4] == [python, "-m", "pip", "install"]
    assert words[4:] == [pip_requirement(own, "torch")]
    assert "[torch]" in words[4]


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("Unknown option: -P", "3.11"),
        ("Segmentation fault", "1 ... 'Segmentation fault'"),
    ],
)
def test_what_an_interpreter_says_at_its_end(
    says: str, told: str, tmp_path: Path, wording: Wording
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {says} >&2\nexit 1\n")
    python.chmod(0o755)
    with Worker(launch(python=str(python))) as worker:
        outcome = worker.start()
    assert outcome.start_failed
    wording.line(outcome.cause, told)


def test_current_folder_is_not_on_the_import_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    with Worker(launch()) as worker:
        assert worker.start().ok
