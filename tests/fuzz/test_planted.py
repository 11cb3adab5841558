"""The fuzzer finds planted faults: kernels that are wrong at some lengths, values or attributes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import plugin_planted
import pytest
from wording import Wording

from harness.checking.known_differences import Differences
from harness.checking.reproducer import Failure
from harness.errors import CouldNotRun
from harness.fuzz.cases import Draft, draw_case
from harness.fuzz.compare import FORWARD_MODE, CaseRunner
from harness.fuzz.record import Fault
from harness.fuzz.run import FuzzSearch
from harness.oracle.case import Case
from harness.oracle.tolerance import Deviation
from harness.worker.launch import Launch
from harness.worker.remote import WorkerFault
from harness.worker.worker import Outcome, Worker

DTYPES = ("float32", "float64")
# The backend -> some of its faults, and a function or layer of the smallest case with each of them.
FUNCTIONS = {
    "planted": {
        "one-hot-4": "one_hot",
        "segment-sum-nan": "segment_sum",
        "windows-dilated-stride": "windows",
        "equal-denormals": "==",
        "zero-times-inf": "*",
        "erf-remainder": "erf",
    },
    "planted-torch": {
        "avg-pool-count": "avg_pool",
        "conv-dilated-stride": "conv2d",
    },
}
# The number of cases in which these faults, and all faults, are found.
FEW_CASES = 52
MOST_CASES = 1600


def start(backend: str) -> Worker:
    earlier = list(filter(None, [os.environ.get("PYTHONPATH", "")]))
    path = os.pathsep.join([str(plugin_planted.FOLDER), *earlier])
    return Worker(Launch(backend, environment={"PYTHONPATH": path}))


@pytest.fixture(scope="module", params=["planted", "planted-torch"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    with start(request.param) as worker:
        yield worker


def runner_of(worker: Worker, fault: str) -> CaseRunner:
    path = "native-compiled" if fault.startswith("compiled") else "native"
    return CaseRunner(worker, fault, path, 60)


def search_for(worker: Worker, fault: str) -> FuzzSearch:
    search = FuzzSearch(runner_of(worker, fault), Differences())
    search.start()
    return search


def faults_of(worker: Worker) -> list[str]:
    devices = (worker.hello or {})["devices"]
    return [device for device in devices if device != "right"]


def count_equations(fault: Fault) -> int:
    return len(fault.model.partition("equations: |\n")[2].split("loss:")[0].splitlines())


def test_faults_are_found_and_made_small(worker: Worker) -> None:
    missing = dict(FUNCTIONS[worker.launch.backend])
    right = search_for(worker, "right")
    for number in range(FEW_CASES):
        draft, case = draw_case(0, number, DTYPES)
        assert right.run(draft, case).outcome == "agree"
        for fault, function in [*missing.items()]:
            search = search_for(worker, fault)
            line = search.run(draft, case)
            assert set(line.faults) == set(search.faults)
            found = [f for f in search.faults.values() if function in f.functions]
            if found:
                assert min(map(count_equations, found)) <= 2
                del missing[fault]
        if not missing:
            break
    assert not missing


def test_a_fault_of_forward_mode_is_a_number_and_has_no_reproducer(tmp_path: Path) -> None:
    with start("planted-torch") as worker:
        runner = CaseRunner(worker, "tangent-of-log", "native", 60)
        search = FuzzSearch(runner, Differences(), tmp_path)
        search.start()
        assert search.run(*draw_case(0, 92, DTYPES)).outcome == "differ"
    (fault,) = search.faults.values()
    assert (fault.mode, fault.folder) == (FORWARD_MODE, "")
    assert fault.detail.startswith("derivative is off")
    assert not list(tmp_path.iterdir())


def test_a_fault_of_a_compiler_is_found_only_on_a_compiled_path(tmp_path: Path) -> None:
    with start("planted-torch") as worker:
        for path, outcome in (("native", "agree"), ("native-compiled", "differ")):
            runner = CaseRunner(worker, "compiled-output", path, 60)
            search = FuzzSearch(runner, Differences(), tmp_path)
            assert search.run(*draw_case(0, 1, DTYPES)).outcome == outcome
    assert not any(fault.folder for fault in search.faults.values())


class Refusing(CaseRunner):
    """A runner whose backend refuses the last pass of each case."""

    def failures(
        self, draft: Draft, case: Case, only: tuple[str, str] | None = None
    ) -> Iterator[tuple[Failure, list[Deviation]]]:
        yield from super().failures(draft, case, only)
        if only is None:
            raise WorkerFault("train", Outcome("error", cause="no", kind="UsageError"))


def test_faults_of_the_passes_before_a_refused_pass_are_kept() -> None:
    with start("planted") as worker:
        for fault, outcome in (("right", "unsupported"), ("sum-two-axes", "differ")):
            search = FuzzSearch(Refusing(worker, fault, "native", 60), Differences())
            assert search.run(*draw_case(0, 1, DTYPES)).outcome == outcome
            assert bool(search.faults) == (outcome == "differ")


def test_a_backend_that_does_not_start_again_is_no_fault(wording: Wording) -> None:
    with start("planted") as worker:
        search = search_for(worker, "right")
        assert search.run(*draw_case(0, 0, DTYPES)).outcome == "agree"
        worker.close()
        worker.launch = replace(worker.launch, python="no-such-python")
        with wording.raises(CouldNotRun, "planted ... 'no-such-python'"):
            search.run(*draw_case(0, 1, DTYPES))
        assert not search.faults


def test_every_fault_is_found(worker: Worker) -> None:
    """Stop at the first failing pass of each fault, because making it small is not needed here."""
    search_for(worker, "right")
    missing, alarms = set(faults_of(worker)), []
    for number in range(MOST_CASES):
        draft, case = draw_case(0, number, DTYPES)
        if list(runner_of(worker, "right").failures(draft, case)):
            alarms.append(number)
            continue
        for fault in sorted(missing):
            if next(runner_of(worker, fault).failures(draft, case), None):
                missing.remove(fault)
        if not missing:
            break
    assert not missing
    assert not alarms
