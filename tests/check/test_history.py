"""A history answers for what agreed when all was as it is now, and never for anything else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.check import history, provenance
from harness.check.cell import Cell
from harness.check.events import CheckEvents
from harness.check.history import sealed
from harness.check.recorded import ended
from harness.check.records import read_records
from harness.check.request import Request
from harness.check.run import Engine
from harness.errors import UsageError
from harness.spec.library import Library

HARNESS = str(Path(sys.executable).parent / "harness")
MODEL = Library(()).find("model", "lesson6/simple_rnn").path
DENSE = Library(()).find("layer", "dense").path
BACKEND = """
from harness.backends.numpy.backend import Numpy
from harness.runtime.hookspecs import hookimpl
from own_{name} import kernels


class Own(Numpy):
    name = "own-{name}"


@hookimpl
def harness_backend(name):
    return Own()
"""


class Told(CheckEvents):
    """Keeps what is said, and which cells are run."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.ran: list[str] = []

    def again(self, reasons: Sequence[str]) -> None:
        self.reasons += reasons

    def began(self, cell: Cell) -> None:
        self.ran.append(f"{cell.spec} on {cell.backend}")


class Run:
    """Two models on numpy and on two backends of another distribution, with a history."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.history = folder, folder / "history"
        text = Path(str(MODEL)).read_text()
        self.specs = tuple(folder / f"{name}.yaml" for name in ("one", "two"))
        for path in self.specs:
            path.write_text(text.replace("model: lesson6/simple_rnn", f"model: {path.stem}"))
        self.site = folder / "site"
        entries = "[harness.backends]\n"
        for name in ("a", "b"):
            package = self.site / f"own_{name}"
            package.mkdir(parents=True)
            (package / "__init__.py").write_text("")
            (package / "kernels.py").write_text("")
            (package / "backend.py").write_text(BACKEND.format(name=name))
            entries += f"own-{name} = own_{name}.backend\n"
        info = self.site / "own-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entries)
        self.more: dict[str, Any] = {}

    def __call__(self, **more: Any) -> Told:
        given: dict[str, Any] = {
            "specs": tuple(map(str, self.specs)),
            "backends": ("own-a", "own-b", "numpy"),
            "dtypes": ("float64",),
            "checks": ("values",),
            "history": self.history,
            **self.more,
            **more,
        }
        told = Told()
        with Engine(Request(**given), told) as engine:
            self.report = engine.run()
            self.starts = sum(worker.starts for worker in engine.workers.values())
        return told

    @property
    def files(self) -> list[Path]:
        return sorted(self.history.glob("*.jsonl"))

    def rewrite(self, change: Callable[[dict[str, Any]], None], *, honest: bool = False) -> None:
        """Edit all lines of the history; with ``honest`` their checksums are made anew."""
        for path in self.files:
            lines = [dict(line) for line in read_records(path).lines]
            for line in lines:
                change(line)
            if honest:
                lines = list(_sealed_anew(lines))
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _sealed_anew(lines: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    fields = ("spec", "backend", "device", "dtype", "path")
    open_cells: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for line in lines:
        if line["kind"] in ("begin", "result", "end"):
            key = tuple(line[name] for name in fields)
            line.pop("checksum", None)
            open_cells.setdefault(key, []).append(line)
            if line["kind"] == "end":
                line = sealed(open_cells.pop(key))
        yield line


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that is complete, and known to be remembered."""
    run = Run(tmp_path)
    monkeypatch.syspath_prepend(run.site)
    monkeypatch.setenv("PYTHONPATH", str(run.site))
    assert len(run().ran) == 6
    assert run.report.exit_code == 0
    again = run()
    assert (again.ran, again.reasons, run.starts) == ([], [], 0)
    assert (run.report.exit_code, len(run.report.results)) == (0, 6)
    assert len(run.files) == 1, "a run that adds nothing leaves no file"
    return run


def test_a_change_of_one_backend_runs_that_backend(run: Run) -> None:
    (run.site / "own_a" / "kernels.py").write_text("# changed\n")
    told = run()
    assert told.ran == ["one on own-a", "two on own-a"]
    assert told.reasons == ["2 cells are run again: the code of the backend has changed"]
    assert run().ran == []
    # Back again, as after another branch: what was known of that code is known.
    (run.site / "own_a" / "kernels.py").write_text("")
    assert run().ran == []


def test_a_change_that_breaks_a_backend_does_not_pass(run: Run) -> None:
    backend = run.site / "own_b" / "backend.py"
    name = '    name = "own-b"\n'
    wrong = "    def numpy(self, tensor):\n        return super().numpy(tensor) * 1.001\n"
    backend.write_text(backend.read_text().replace(name, f"{name}\n{wrong}"))
    told = run()
    assert told.ran == ["one on own-b", "two on own-b"]
    assert run.report.exit_code == 1
    # What differs is run again, whatever is remembered.
    told = run()
    assert told.ran == ["one on own-b", "two on own-b"]
    assert told.reasons == ["2 cells are run again: the last verdict is differ"]
    assert run.report.exit_code == 1


def test_a_spec_that_changed(run: Run) -> None:
    text = run.specs[0].read_text()
    run.specs[0].write_text(
        text.replace("out(last(hidden_states))", "out(last(hidden_states)) * 2")
    )
    told = run()
    assert sorted(told.ran) == ["one on numpy", "one on own-a", "one on own-b"]
    assert told.reasons == ["3 cells are run again: the spec has changed"]


def test_a_definition_of_a_layer_that_changed(run: Run) -> None:
    layers = run.folder / "layers"
    layers.mkdir()
    dense = Path(str(DENSE)).read_text()
    assert "x @ W + b" in dense
    (layers / "dense.yaml").write_text(dense)
    run.more["folders"] = (run.folder,)
    assert run().ran == []
    (layers / "dense.yaml").write_text(dense.replace("x @ W + b", "x @ W + b + b"))
    assert run().reasons == ["6 cells are run again: the spec has changed"]


def test_a_framework_of_another_version(run: Run) -> None:
    def older(line: dict[str, Any]) -> None:
        if line["kind"] == "end":
            line["greeting"]["numpy"] = "1.0"

    run.rewrite(older, honest=True)
    (reason,) = run().reasons
    assert reason.startswith("6 cells are run again: numpy 1.0 became ")


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "TF_OF_A_TEST"])
def test_a_variable_and_the_number_of_threads(
    name: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    (reason,) = run().reasons
    assert reason == f"6 cells are run again: variable {name} none became 1"


@pytest.mark.parametrize(
    ("name", "value"),
    [("host", "elsewhere"), ("id", "0" * 16), ("cpu", "another"), ("usable_cores", 77)],
)
def test_another_machine(
    name: str, value: object, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = provenance.machine()
    monkeypatch.setattr(provenance, "machine", lambda: {**own, name: value})
    assert len(run().ran) == 6


def test_a_newer_harness(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real, code = provenance.version, provenance.digest
    own = "backend-comparison-harness"
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "version", lambda n: "99.0" if n == own else real(n))
        assert len(run().ran) == 6
    changed = monkeypatch.setattr
    changed(provenance, "digest", lambda m: "f" * 64 if m == "harness" else code(m))
    assert "the code of the harness has changed" in run().reasons[0]


@pytest.mark.parametrize(
    "more",
    [
        {"seed": 1},
        {"sizes": {"hidden": 9}},
        {"checks": ("values", "inference")},
        {"deterministic": True},
        {"dtypes": ("float64", "float32")},
        {"paths": ("equations",)},
        {"memory_limit": 1 << 40, "service": "harness.demo.broken:handler"},
    ],
)
def test_other_options_are_other_cells(more: Mapping[str, Any], run: Run) -> None:
    assert len(run(**more).ran) >= 6


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "agree", "check": "loss"},
        {"error": 0.0},
        {"location": "nowhere"},
        {"signature": {"harness": "0"}},
    ],
)
def test_an_edited_record_counts_for_nothing(change: Mapping[str, Any], run: Run) -> None:
    name = next(iter(change))
    kinds = {"verdict": "result", "error": "result", "location": "end", "signature": "begin"}

    def edited(line: dict[str, Any]) -> None:
        if line["kind"] == kinds[name] and line["spec"] == "one" and line[name] is not None:
            line |= {**change}

    run.rewrite(edited)
    told = run()
    assert sorted(told.ran) == ["one on numpy", "one on own-a", "one on own-b"]
    assert "3 cells of " in told.reasons[0]
    assert told.reasons[0].endswith("whose checksum is wrong")


def test_a_difference_that_was_edited_into_agreement_is_run(run: Run) -> None:
    def differ(line: dict[str, Any]) -> None:
        if line["kind"] == "result" and line["check"] == "loss":
            line["verdict"] = "differ"

    def agree(line: dict[str, Any]) -> None:
        if line["kind"] == "result":
            line["verdict"] = "agree"

    run.rewrite(differ, honest=True)
    assert len(run.files) == 1
    run.rewrite(agree)
    assert len(run().ran) == 6


def test_a_later_difference_in_the_same_state_decides(run: Run) -> None:
    (first,) = run.files

    def differ(line: dict[str, Any]) -> None:
        if line["kind"] == "head":
            line["started"] = "2999-01-01T00:00:00Z"
        if line["kind"] == "result" and line["check"] == "loss":
            line["verdict"] = "differ"

    right = first.read_text()
    run.rewrite(differ, honest=True)
    first.rename(run.history / "later.jsonl")
    first.write_text(right)
    told = run()
    assert len(told.ran) == 6
    assert told.reasons == ["6 cells are run again: the last verdict is differ"]


def test_what_was_torn_or_cut_off_is_run(run: Run) -> None:
    (path,) = run.files
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    told = run()
    assert 0 < len(told.ran) < 6
    kept = [r for r in run.report.results if r.kept]
    assert len(kept) + len(told.ran) == 6
    assert run().ran == []


@pytest.mark.parametrize("text", ["{\nno records\n", "\n", '{"kind":"head","schema":99}\n'])
def test_a_file_that_cannot_be_read_is_told_and_passed_over(text: str, run: Run) -> None:
    (run.history / "damaged.jsonl").write_text(text)
    told = run()
    assert told.ran == []
    assert told.reasons[0].startswith("passed over in the history: ")
    assert "damaged.jsonl" in told.reasons[0]


def test_fresh_runs_all_and_is_remembered(run: Run) -> None:
    assert len(run(fresh=True).ran) == 6
    assert len(run.files) == 2
    assert run().ran == []


def test_what_is_kept_stands_in_records_and_in_words(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    (run.site / "own_a" / "kernels.py").write_text("# changed\n")
    run(records=path)
    found = ended(read_records(path, complete=True))
    assert len(found) == 6
    before = ended(read_records(run.files[0], complete=True))
    for cell, result in found.items():
        kept = cell.backend != "own-a"
        assert any(line.get("since") for line in _begins(path, cell)) == kept
        if kept:
            old = before[cell]
            assert (result.verdict, result.error, result.layers, result.version) == (
                old.verdict,
                old.error,
                old.layers,
                old.version,
            )
            assert result.signature == old.signature
            assert result.since == old.since
    from harness.check.report import summary

    day = run.report.results[-1].since[:10]
    assert f"(4 kept: 4 from {day})" in summary(run.report, 1.0)


def _begins(path: Path, cell: Cell) -> list[dict[str, Any]]:
    lines = read_records(path).of_kind("begin")
    return [line for line in lines if (line["spec"], line["backend"]) == (cell.spec, cell.backend)]


def test_a_folder_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UsageError, match="takes a folder of records"):
        history.read(file, Request())
    with pytest.raises(UsageError, match="give --history FOLDER"):
        Engine(Request(backends=("numpy",), fresh=True))
    assert history.read(tmp_path / "none", Request()).cells == {}


def test_the_command_and_its_setting(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.harness.check]\nhistory = "known"\n')
    words = ("check", "lesson6/three_char", "--backend", "numpy", "--check", "values")

    def ran(*more: str) -> str:
        found = subprocess.run(
            [HARNESS, *words, *more], cwd=tmp_path, capture_output=True, text=True
        )
        assert found.returncode == 0, found.stderr
        return found.stdout

    assert "kept" not in ran()
    assert len(list((tmp_path / "known").iterdir())) == 1
    shown = ran()
    assert "2 cells: 2 agree (2 kept: 2 from 20" in shown
    assert "numpy: 2 from 20" in shown
    as_json = json.loads(ran("--json"))
    assert {r["since"][:2] for r in as_json["kept"]} == {"20"}
    assert "kept" not in ran("--fresh")
    page = tmp_path / "page.html"
    ran("--html", str(page))
    assert "three_char" in page.read_text()
