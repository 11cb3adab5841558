"""What had ended is taken up only where all that decides its numbers is as it was."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import warm_commands
from history_runs import RecordedEvents
from places import SPECS
from pristine import Pristine
from record_lines import lines_of

from harness.checking import history
from harness.checking.engine import Engine
from harness.checking.request import Request

SHIPPED = SPECS
MODEL = (SHIPPED / "models/lesson6/simple_rnn.yaml").read_text()
DENSE = (SHIPPED / "layers/dense.yaml").read_text()


def model(folder: Path, name: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(MODEL.replace("model: lesson6/simple_rnn", f"model: {name}"))
    return path


class Run:
    """Two models on numpy, with a record file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.specs = (model(folder, "one"), model(folder, "two"))
        self.more: dict[str, Any] = {}

    def __call__(self) -> RecordedEvents:
        request = Request(
            specs=tuple(map(str, self.specs)),
            backends=("numpy",),
            dtypes=("float64",),
            checks=("values",),
            records=self.folder / "r.jsonl",
            resume=True,
            **self.more,
        )
        told = RecordedEvents()
        with Engine(request, told) as engine:
            report = engine.run()
            assert len(report.results) == 2
            self.starts = engine.workers["numpy"].starts
        return told


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Pristine]:
    """A run that is complete, and known to be taken up as it is."""
    run = Run(tmp_path_factory.mktemp("complete"))
    assert run().ran == ["one on numpy", "two on numpy"]
    again = run()
    assert (again.ran, again.reasons, run.starts) == ([], [], 0)
    return run, Pristine(run.folder)


@pytest.fixture
def run(complete: tuple[Run, Pristine], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """That run, as it was when it was complete; patches outlive it."""
    run, pristine = complete
    pristine.restore()
    run.more = {}
    yield run
    assert run().ran == [], "what was run again is taken up the next time"


CHANGES = {
    "an equation": ("out(last(hidden_states))", "out(last(hidden_states)) * 0.5", "the spec has"),
    "a size": ("hidden: 256", "hidden: 255", "the spec has changed"),
    "a learning rate": ("8, learning_rate: 0.001", "8, learning_rate: 0.002", "the spec has"),
    "an initial law": ("identity", "zeros", "the spec has changed"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_spec_that_changed(name: str, run: Run) -> None:
    old, new, words = CHANGES[name]
    text = run.specs[0].read_text()
    assert old in text, text
    run.specs[0].write_text(text.replace(old, new).replace("parameters:", "# parameters:"))
    told = run()
    assert told.ran == ["one on numpy"]
    assert len(told.reasons) == 1
    assert told.reasons[0].startswith(f"1 cell is run again: {words}")


def test_comments_and_prose_change_nothing(run: Run) -> None:
    text = run.specs[0].read_text().replace("summary: ", "summary: Anew, ")
    run.specs[0].write_text(f"# a comment\n{text}")
    assert run().ran == []


def test_a_definition_of_a_folder(run: Run) -> None:
    layers = run.folder / "layers"
    layers.mkdir()
    (layers / "dense.yaml").write_text(DENSE)
    run.more["folders"] = (run.folder,)
    assert run().ran == [], "the same definition from elsewhere is the same definition"
    assert "x @ W + b" in DENSE
    (layers / "dense.yaml").write_text(DENSE.replace("x @ W + b", "x @ W + b + b"))
    assert run().reasons == ["2 cells are run again: the spec has changed"]


def test_known_differences(run: Run) -> None:
    (run.folder / "known_differences.yaml").write_text(
        "differences:\n  odd:\n    summary: s\n    reason: r\n    versions: v\n"
        "    link: l\n    match: {backend: numpy, spec: none}\n"
    )
    run.more["folders"] = (run.folder,)
    assert run().reasons == ["2 cells are run again: the known differences have changed"]


def test_a_variable_of_the_environment(run: Run) -> None:
    run.more["environment"] = {"numpy": {"OMP_NUM_THREADS": "1"}}
    words = "--env OMP_NUM_THREADS now 1 (before: none)"
    assert run().reasons == [f"2 cells are run again: {words}"]


def test_a_variable_of_the_surroundings(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_OF_A_TEST", "3")
    words = "variable TF_OF_A_TEST now 3 (before: none)"
    assert run().reasons == [f"2 cells are run again: {words}"]


def test_names_that_no_package_has(run: Run) -> None:
    def odd(line: dict[str, Any]) -> None:
        if line["kind"] == "end":
            line["greeting"] |= {"": "1", "a/../b": "2", "x" * 5000: "3"}

    rewritten(run.folder / "r.jsonl", odd)
    (reason,) = run().reasons
    assert "now none (before: 1)" in reason


def test_another_interpreter_is_asked_itself(run: Run, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    run.more["pythons"] = {"numpy": str(python)}
    (reason,) = run().reasons
    assert f"interpreter {sys.executable} became {python}" in reason
    assert "none" not in reason, "what is installed there is not known, which is no change"
    assert run().ran == []
    assert run.starts == 1, "only its own worker knows its versions"


@pytest.mark.parametrize(
    ("name", "value"), [("host", "elsewhere"), ("cpu", "another"), ("architecture", "arm64")]
)
def test_another_machine(name: str, value: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    own = history.describe_machine()
    monkeypatch.setattr(history, "describe_machine", lambda: own.model_copy(update={name: value}))
    assert run().reasons == [f"2 cells are run again: {name} {getattr(own, name)} became {value}"]


@pytest.mark.parametrize("name", ["backend-comparison-harness", "numpy"])
def test_another_version_in_this_interpreter(
    name: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = history.version
    monkeypatch.setattr(history, "version", lambda n: "99.0" if n == name else real(n))
    (reason,) = run().reasons
    assert "became 99.0" in reason


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    lines = lines_of(path)
    for line in lines:
        change(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_version_that_only_the_worker_tells(run: Run) -> None:
    def older(line: dict[str, Any]) -> None:
        if line["kind"] == "end" and line["spec"] == "one":
            line["greeting"]["numpy"] = "1.0"

    rewritten(run.folder / "r.jsonl", older)
    told = run()
    assert told.ran == ["one on numpy"]
    (reason,) = told.reasons
    assert reason.startswith("1 cell is run again: numpy 1.0 became ")


@pytest.mark.parametrize(("kind", "name"), [("begin", "signature"), ("end", "greeting")])
def test_records_of_before_there_were_signatures(kind: str, name: str, run: Run) -> None:
    def older(line: dict[str, Any]) -> None:
        if line["kind"] == kind:
            del line[name]

    rewritten(run.folder / "r.jsonl", older)
    (reason,) = run().reasons
    assert reason.startswith("2 cells are run again: the record file does not say")


def test_a_limit_counts_where_it_was_met(run: Run) -> None:
    run.more["timeout"] = 77.0
    assert run().ran == [], "what had agreed within another limit agrees"

    def slow(line: dict[str, Any]) -> None:
        if line["kind"] == "result" and line["spec"] == "two":
            line["verdict"] = "timeout"

    rewritten(run.folder / "r.jsonl", slow)
    assert run().reasons == ["1 cell is run again: --timeout 120.0 became 77.0"]


BACKEND = """
from harness.backends.numpy.backend import Numpy
from harness.runtime.hookspecs import hookimpl


class Own(Numpy):
    name = "own"


@hookimpl
def harness_backend(name):
    return Own()
"""


@pytest.mark.parametrize(
    "changed", ["own_backend.py", "own_parts/kernels.py", "own_parts/sub/x.py"]
)
def test_code_of_a_backend_under_the_same_version(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "own_backend" if changed == "own_backend.py" else "own_parts.backend"
    files: Mapping[str, str] = {
        "own_backend.py": BACKEND,
        "own_parts/__init__.py": "",
        "own_parts/backend.py": BACKEND,
        "own_parts/kernels.py": "",
        "own_parts/sub/x.py": "",
        "own-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: own\nVersion: 1.0\n",
        "own-1.0.dist-info/entry_points.txt": f"[harness.backends]\nown = {module}\n",
    }
    place = tmp_path / "site"
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("PYTHONPATH", str(place))
    request = Request(
        specs=("lesson6/simple_rnn",),
        backends=("own", "numpy"),
        dtypes=("float64",),
        checks=("values",),
        records=tmp_path / "r.jsonl",
        resume=True,
    )

    def run() -> RecordedEvents:
        with Engine(request, told := RecordedEvents()) as engine:
            assert engine.run().exit_code == 0
        return told

    assert len(run().ran) == 2
    assert run().ran == []
    (place / changed).write_text(files[changed] + "# changed\n")
    told = run()
    assert told.reasons == ["1 cell is run again: the code of the backend has changed"]
    assert run().ran == []
    imported = {name.partition(".")[0] for name in sys.modules}
    assert not imported & {"own_backend", "own_parts"}, "nothing was imported"


def test_the_command_line_says_what_is_run_again(tmp_path: Path) -> None:
    path = model(tmp_path, "one")
    command = ["check", str(path), "--backend", "numpy", "--check", "values", "--resume"]
    command += ["--records", str(tmp_path / "r.jsonl")]
    assert warm_commands.run(command).returncode == 0
    path.write_text(path.read_text().replace("identity", "zeros"))
    run = warm_commands.run(command)
    assert run.returncode == 0
    assert "2 cells are run again: the spec has changed" in run.stderr
    assert "kept" not in run.stdout
