"""What a backend may do to its process, to what it starts and to what watches over it.

Each costs its own cell, as a session is opened or in mid-call, and leaves nothing behind.
"""

from __future__ import annotations

import functools
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import plugin_faulty_cells
import pytest
from process_faults.support import marked, wait_until
from sampling import sampled
from small_models import ONE_LAYER

from harness.checking.engine import Engine
from harness.checking.request import Request
from harness.checking.runner import Report
from harness.files.system import PORTABLE
from harness.results.cell import CellResult
from harness.results.findings import Verdict

# What hangs is waited for that long; what answers may take its time, whatever runs beside it.
TIMEOUT, PATIENCE = 3.0, 120.0
# What it does -> the verdict, and words of the finding that has it.
KINDS: dict[str, tuple[Verdict, str]] = {
    "litter": ("agree", ""),
    "spread": ("agree", ""),
    "multiply": ("agree", ""),
    "answer_in_child": ("agree", ""),
    "hang_at_exit": ("agree", ""),
    "print_gigabytes": ("agree", ""),
    "print_for_ever": ("agree", ""),
    "leave_group": ("crashed", "exit code 0 during the call"),
    "close_socket": ("crashed", "the other end closed the stream"),
    "garbage": ("crashed", "a frame of"),
    "stop_self": ("timeout", "no answer in"),
    "ignore_sigterm": ("timeout", "no answer in"),
    "hold_gil": ("timeout", "no answer in"),
    "stop_guardian": ("crashed", ""),
    "interrupt_all": ("crashed", "SIGTERM"),
    "exit_in_thread": ("crashed", "exit code 5 during the call"),
    "no_memory_to_fork": ("crashed", "SIGSEGV"),
    "abort": ("crashed", "SIGABRT"),
    "die_leaving_child": ("crashed", "SIGKILL"),
    "exit_politely": ("error", "SystemExit: 7"),
    "close_all_files": ("agree", ""),  # the last, for the process stays, and cannot print
}
STAGES = ("open", "gradients")


HANGING = tuple(kind for kind, (verdict, _) in KINDS.items() if verdict == "timeout")


@dataclass(frozen=True)
class Run:
    """Kinds at one stage, each in a cell of its own, with good cells between them."""

    report: Report
    seconds: float
    left_behind: bool

    def of(self, backend: str) -> dict[str, CellResult]:
        return {r.cell.spec: r for r in self.report.results if r.cell.backend == backend}


@functools.cache
def run(stage: str, hanging: bool, system: str) -> Run:
    kinds = [kind for kind in KINDS if (kind in HANGING) == hanging]
    # Only Linux ends a daemon that has emptied its environment, and what forks without a pause.
    escaped = int(system == PORTABLE and "litter" in kinds)
    if system == PORTABLE and "multiply" in kinds:
        kinds.remove("multiply")
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        models = Path(name) / "models"
        models.mkdir()
        names = [spec for kind in kinds for spec in (kind, f"after_{kind}")]
        for spec in names:
            (models / f"{spec}.yaml").write_text(ONE_LAYER.format(name=spec))
        patch.syspath_prepend(plugin_faulty_cells.FOLDER)
        faults = {f"{kind} float32": f"{stage}:{kind}" for kind in kinds}
        request = Request(
            tuple(names),
            ("faulty-numpy", "numpy"),
            dtypes=("float32",),
            folders=(Path(name),),
            environment={
                "faulty-numpy": {**plugin_faulty_cells.variables(faults), "FAULTS_MARK": mark}
            },
            checks=("values",),
            timeout=TIMEOUT if hanging else PATIENCE,
            jobs=2,
        )
        started = time.monotonic()
        with Engine(request) as engine:
            report = engine.run()
        seconds = time.monotonic() - started
        return Run(report, seconds, not wait_until(lambda: len(marked(mark)) == escaped, 10.0))


@pytest.mark.parametrize("stage", sampled(STAGES, ["gradients"]))
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gets_its_verdict(kind: str, stage: str, system: str) -> None:
    if (kind, system) == ("multiply", PORTABLE):
        pytest.skip("only Linux ends processes that fork without a pause")
    verdict, words = KINDS[kind]
    found = run(stage, kind in HANGING, system).of("faulty-numpy")
    result = found[kind]
    assert result.verdict == verdict, result.first_fault
    if words:
        assert result.first_fault is not None
        assert words in result.first_fault.detail
    # The next one is none the worse for it.
    assert found[f"after_{kind}"].verdict == "agree", found[f"after_{kind}"].first_fault


@pytest.mark.parametrize("stage", sampled(STAGES, ["gradients"]))
@pytest.mark.parametrize("hanging", [True, False])
def test_others_are_unharmed_and_nothing_is_left(stage: str, hanging: bool, system: str) -> None:
    found = run(stage, hanging, system)
    assert not found.left_behind
    assert {r.verdict for r in found.of("numpy").values()} == {"agree"}
    assert found.report.exit_code == 3
    assert found.seconds < len(HANGING) * TIMEOUT + 4.0 * len(KINDS)
