"""The fuzzer finds planted faults: kernels that are wrong at some lengths, values or attributes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import plugin_planted
import pytest

from harness.checking.known_differences import Differences
from harness.fuzz.cases import draw_case
from harness.fuzz.compare import CaseRunner
from harness.fuzz.record import Fault
from harness.fuzz.run import FuzzSearch
from harness.worker.launch import Launch
from harness.worker.worker import Worker

DTYPES = ("float32", "float64")
# The backend -> some of its faults, and a function or layer of the smallest case with each of them.
FUNCTIONS = {
    "planted": {
        "argsort-unstable": "argsort",
        "one-hot-4": "one_hot",
        "segment-sum-nan": "segment_sum",
        "windows-dilated-stride": "windows",
        "equal-denormals": "==",
        "zero-times-inf": "*",
        "erf-remainder": "erf",
    },
    "planted-torch": {"avg-pool-count": "avg_pool", "conv-dilated-stride": "conv2d"},
}
# The number of cases in which these faults, and all faults, are found.
FEW_CASES = 150
MOST_CASES = 1600


@pytest.fixture(scope="module", params=["planted", "planted-torch"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    variables = {"PYTHONPATH": os.pathsep.join([str(plugin_planted.FOLDER), *_path()])}
    with Worker(Launch(request.param, environment=variables)) as worker:
        yield worker


def _path() -> list[str]:
    return list(filter(None, [os.environ.get("PYTHONPATH", "")]))


def search_for(worker: Worker, fault: str) -> FuzzSearch:
    search = FuzzSearch(CaseRunner(worker, fault, "native", 60), Differences())
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


def test_every_fault_is_found(worker: Worker) -> None:
    """Stop at the first failing pass of each fault, because making it small is not needed here."""
    search_for(worker, "right")
    missing, alarms = set(faults_of(worker)), []
    for number in range(MOST_CASES):
        draft, case = draw_case(0, number, DTYPES)
        if list(CaseRunner(worker, "right", "native", 60).failures(draft, case)):
            alarms.append(number)
            continue
        for fault in sorted(missing):
            if next(CaseRunner(worker, fault, "native", 60).failures(draft, case), None):
                missing.remove(fault)
        if not missing:
            break
    assert not missing
    assert not alarms
