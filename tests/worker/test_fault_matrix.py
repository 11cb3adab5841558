"""Every fault on every shipped backend, in the middle of 22 cells: it costs its own cell only.

``tests/support/plugin_faulty_cells`` holds the plugin that wraps the backends. Each backend meets
all faults in one run, with good cells between them; the heavy backends run beside each other.
"""

from __future__ import annotations

import functools
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import plugin_faulty_cells
import pytest
from process_faults.support import group_members, is_gone
from sampling import sampled
from small_models import ONE_LAYER

from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.checking.runner import Report
from harness.results.cell import CellResult
from harness.results.file import read_records
from harness.results.findings import Verdict
from harness.results.lines import Begin, End
from harness.results.records import Records

HEAVY = ("torch", "jax", "keras", "keras-torch", "keras-jax")
# In MiB; the heavy ones fill more than half a GiB by their imports alone.
MEMORY = {"numpy": 512, **dict.fromkeys(HEAVY, 2048)}
# A hang is noticed after so long. Most frameworks compile in the first call after each start.
TIMEOUT = {**dict.fromkeys(HEAVY, 25.0), "numpy": 3.0, "torch": 8.0}


@dataclass(frozen=True)
class Expected:
    """What a fault leads to: a verdict, and words of the finding that has it."""

    verdict: Verdict
    words: str
    agreeing: tuple[str, ...] = ()


VALUES = ("outputs", "loss", "gradients")
# Position among the cells -> fault; all other cells are good ones.
FAULTS = {
    1: "segfault",
    3: "sigkill_in_mid_cell",
    4: "hang_with_gil",
    6: "exit_0",
    8: "allocate",
    10: "print_megabytes",
    12: "wrong_shape",
    14: "nan",
    15: "none",
    17: "view_of_own_buffer",
    18: "killed_and_no_import",
    20: "lose_modules",
}
EXPECTED = {
    1: Expected("crashed", "SIGSEGV"),
    3: Expected("crashed", "SIGKILL", VALUES),
    4: Expected("timeout", "no answer in"),
    6: Expected("crashed", "exit code 0 during the call"),
    8: Expected("out-of-memory", "is over the limit of"),
    12: Expected("differ", "expected shape [3, 4], found [1, 3, 4]", ("loss", "gradients")),
    14: Expected("differ", "output.logits", ("loss", "gradients")),
    15: Expected("differ", "output.logits: nothing was returned", ("loss", "gradients")),
    17: Expected("differ", "output output.logits was changed by the next call", VALUES),
    18: Expected("crashed", "SIGKILL"),
    # The cell after the one that killed its process finds a plugin that does not import.
    19: Expected("error", "ImportError: libfaulty.so: cannot open shared object file"),
    20: Expected("error", "removed from sys.modules or replaced during this call"),
}


@dataclass(frozen=True)
class Run:
    """A run of the matrix on some backends."""

    report: Report
    records: Records
    seconds: float
    leftover: list[int]


@functools.cache
def run(backends: tuple[str, ...]) -> Run:
    """Run all cells on some backends, beside each other."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.syspath_prepend(plugin_faulty_cells.FOLDER)
        request = _request(backends, folder)
        started = time.monotonic()
        with Engine(request) as engine:
            assert len(engine.cells()) == 22 * len(backends)
            report = engine.run()
            groups = [w.hello["pid"] for w in engine.workers.values() if w.hello]
        seconds = time.monotonic() - started
        leftover = [pid for group in groups for pid in group_members(group)]
        return Run(report, read_records(folder / "run.jsonl"), seconds, leftover)


def _request(backends: tuple[str, ...], folder: Path) -> Request:
    models = folder / "models"
    models.mkdir()
    names = [f"m{number:02}" for number in range(11)]
    for name in names:
        (models / f"{name}.yaml").write_text(ONE_LAYER.format(name=name))
    cells = [f"{name} {dtype}" for name in names for dtype in ("float64", "float32")]
    faults = {cells[position]: fault for position, fault in FAULTS.items()}
    return Request(
        specs=tuple(names),
        backends=tuple(f"faulty-{backend}" for backend in backends),
        folders=(folder,),
        environment={
            f"faulty-{backend}": {
                **plugin_faulty_cells.variables(faults),
                "FAULTY_MARK": str(folder / f"{backend}.mark"),
            }
            for backend in backends
        },
        checks=("values", "aliasing"),
        timeout=max(TIMEOUT[backend] for backend in backends),
        memory_limit=max(MEMORY[backend] for backend in backends) << 20,
        records=folder / "run.jsonl",
        jobs=len(backends),
    )


def _of(backend: str) -> tuple[Run, list[CellResult]]:
    found = run((backend,) if backend in ("numpy", "torch") else HEAVY[1:])
    results = [r for r in found.report.results if r.cell.backend == f"faulty-{backend}"]
    return found, results


BACKENDS = pytest.mark.parametrize("backend", sampled(("numpy", *HEAVY), ()))


@BACKENDS
def test_each_fault_gets_its_own_verdict(backend: str) -> None:
    _, results = _of(backend)
    for position, expected in EXPECTED.items():
        result = results[position]
        fault = FAULTS.get(position, "import fails")
        assert result.verdict == expected.verdict, (fault, result)
        finding = next(f for f in result.findings if f.verdict == expected.verdict)
        assert expected.words in finding.detail, fault
        for check in expected.agreeing:
            assert [f.verdict for f in result.findings if f.check == check] == ["agree"], fault


@BACKENDS
def test_a_fault_costs_its_own_cell_only(backend: str) -> None:
    _, results = _of(backend)
    assert len(results) == 22
    others = [r for position, r in enumerate(results) if position not in EXPECTED]
    assert len(others) == 10
    for result in others:
        assert result.verdict == "agree", (result.cell, result.first_fault)
        assert [f.check for f in result.findings] == [*VALUES, "aliasing"]


@BACKENDS
def test_every_cell_has_its_records_and_the_exit_code_tells(backend: str) -> None:
    found, results = _of(backend)
    assert found.report.exit_code == 3
    assert found.leftover == []
    name = f"faulty-{backend}"
    begun, ended = (
        [(r.spec, r.dtype) for r in found.records.of_kind(kind) if r.backend == name]
        for kind in (Begin, End)
    )
    assert begun == ended == [(r.cell.spec, r.cell.dtype) for r in results]
    verdicts = [r.verdict for r in found.records.of_kind(End) if r.backend == name]
    assert verdicts == [r.verdict for r in results]


def test_the_helper_that_looks_for_leftovers_sees_them() -> None:
    assert os.getpid() in group_members(os.getpgid(0))
    assert not is_gone(os.getpid())
