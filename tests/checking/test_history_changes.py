"""What has changed since a history was written is run again, and what has not is not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from history_runs import DENSE, Run

from harness.checking import history


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


@pytest.mark.parametrize("name", ["table.json", "kernels.so.1", "data/table.npy"])
def test_data_beside_a_backend_that_changed(name: str, run: Run) -> None:
    path = run.site / "own_a" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("1")
    told = run()
    assert told.ran == ["one on own-a", "two on own-a"]
    assert told.reasons == ["2 cells are run again: the code of the backend has changed"]
    assert run().ran == []


def test_a_module_beside_a_backend_that_changed(run: Run) -> None:
    beside = run.site / "own_kernels.py"
    beside.write_text("")
    (run.site / "own-1.0.dist-info" / "top_level.txt").write_text("own_a\nown_b\nown_kernels\n")
    (run.site / "own_a" / "kernels.py").write_text("def late():\n    import own_kernels\n")
    assert len(run().ran) == 2
    assert run().ran == []
    beside.write_text("# changed\n")
    assert run().ran == ["one on own-a", "two on own-a"]


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


@pytest.mark.parametrize(
    "name",
    [
        *("OMP_NUM_THREADS", "TF_OF_A_TEST", "MKL_CBWR", "ATEN_CPU_CAPABILITY", "OMP_DYNAMIC"),
        *("ONEDNN_MAX_CPU_ISA", "NPY_DISABLE_CPU_FEATURES", "LD_LIBRARY_PATH", "PYTHONPATH"),
    ],
)
def test_a_variable_and_the_number_of_threads(
    name: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.environ.get(name)
    monkeypatch.setenv(name, "1")
    (reason,) = run().reasons
    told = "now 1 (before: none)" if before is None else f"{before} became 1"
    assert reason == f"6 cells are run again: variable {name} {told}"


@pytest.mark.parametrize(
    ("name", "value"),
    [("host", "elsewhere"), ("id", "0" * 16), ("cpu", "another"), ("usable_cores", 77)],
)
def test_another_machine(
    name: str, value: object, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = history.describe_machine()
    monkeypatch.setattr(history, "describe_machine", lambda: own.model_copy(update={name: value}))
    assert len(run().ran) == 6


def test_a_newer_harness(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real, code = history.version, history.digest
    own = "backend-comparison-harness"
    with monkeypatch.context() as patch:
        patch.setattr(history, "version", lambda n: "99.0" if n == own else real(n))
        assert len(run().ran) == 6
    changed = monkeypatch.setattr
    changed(history, "digest", lambda m: "f" * 64 if m == "harness" else code(m))
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
