"""``harness bench`` on real worker processes: honest ones get a speed, cheats are refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from places import SUPPORT
from quick_rounds import quick_rounds
from wording import Wording

from harness.timing.console import results_exit_code
from harness.timing.contestant import Contestant, Refused, TimedResult
from harness.timing.proofs import times
from harness.timing.proofs.times import check_hardware
from harness.timing.request import BenchRequest, Entry, groups_of
from harness.timing.run import Bench, LocalTimer
from harness.timing.workload import TimedCase
from harness.worker.launch import Launch, thread_settings
from harness.worker.worker import Worker

pytestmark = pytest.mark.alone

SPEC = "lesson6/sequence_rnn"
FOLDER = str(SUPPORT)
PYTHONPATH = os.pathsep.join(filter(None, [FOLDER, os.environ.get("PYTHONPATH")]))
# Of one thread: on a busy machine two wait for each other.
PATH = {"PYTHONPATH": PYTHONPATH, **thread_settings(1)}
# Handler -> what the refusal says, in training and in a forward pass.
# On a busy machine a few skipped steps of training may show in the results first.
WAITS, SKIPS = "does not wait for its work", "differs: after "
# A cached step takes microseconds, so on a busy machine the proofs before the cache's may fail.
CACHE = ("answers from a cache", "its clock goes wrong", "computes less if results are not read")
CHEATS: dict[str, tuple[str | tuple[str, ...], str | tuple[str, ...]]] = {
    "early": (WAITS, WAITS),
    "lazy": ((WAITS, SKIPS), WAITS),
    "wrong": ("differs: step", "differs: step"),
    "stale": ("differs: step", "differs: step"),
    "caching": ("differs: step", CACHE),
    "one_batch": (SKIPS, SKIPS),
    "drifting": ("differs: step", "differs: step"),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short runs: what is proved does not depend on their length."""
    quick_rounds(monkeypatch)
    monkeypatch.setattr(times, "SHORT", 0.004)


def request(mode: str, **options: object) -> BenchRequest:
    known = {"hidden": (64,), "vocab": (17,), "factors": (5,)}
    chosen: dict[str, object] = {"batches": (48,), "sizes": known, "rounds": 2, "threads": 1}
    chosen |= {"modes": (mode,), "specs": (SPEC,), "path": "derived", **options}
    return BenchRequest(**chosen)  # type: ignore[arg-type]


def entries(*names: str) -> list[Entry]:
    made = []
    for name in names:
        module = "cheats" if name in CHEATS else "handlers"
        launch = Launch(name, handler=f"timed.{module}:{name}", environment=PATH)
        made.append(Entry(name, launch))
    return made


def run(wanted: BenchRequest, *names: str) -> dict[str, TimedResult]:
    with Bench(wanted, entries(*names)) as bench:
        return {result.cell.backend: result for result in bench.run()}


def undisturbed(wanted: BenchRequest, name: str, many: int) -> TimedResult:
    """Return a result whose calls have so many steps each, or the third one.

    Other processes disturb a choice between two speeds that are nearly equal.
    """
    for _ in range(2):
        result = run(wanted, name)[name]
        if result.measured and result.record.many == many:
            return result
    return run(wanted, name)[name]


@pytest.mark.parametrize(("mode", "column"), [("train", 0), ("forward", 1)])
def test_cheats_are_refused_and_the_honest_are_not(mode: str, column: int) -> None:
    found = run(request(mode), "honest", *CHEATS)
    honest = found.pop("honest")
    assert (honest.status, honest.reason) == ("measured", "")
    assert len(honest.seconds) == 2
    for name, result in found.items():
        reason = CHEATS[name][column]
        assert result.status == "refused", name
        assert result.reason.startswith(reason), (name, result.reason)
        assert result.seconds == [], name
    assert results_exit_code([honest, *found.values()]) == 1


def test_faster_than_the_hardware_is_refused(wording: Wording) -> None:
    case = TimedCase(groups_of(request("forward"))[0], "float32", 0)
    (entry,) = entries("honest")
    contestant = Contestant(entry, Worker(entry.launch), case, "cpu", 1.0)
    # A million operations at three times a peak of 1 GFLOP/s: no less than a third of a ms.
    check_hardware(contestant, 10**6, 1e9, 3.4e-4, lambda: 0.0)
    with wording.raises(Refused):
        check_hardware(contestant, 10**6, 1e9, 3.0e-4, lambda: 1e9)
    # Where the machine was busy when the peak was measured, it is higher when it is measured again.
    check_hardware(contestant, 10**6, 1e9, 3.0e-4, lambda: 2e9)
    assert contestant.record.hardware["peak"] == 2e9


# Its numbers in float32 have no digit: the sine is of millions of radians.
LOST = """
model: lost
summary: Nothing of it has a digit in float32.
source: A test.
sizes: {features: 3}
inputs: {x: {shape: [batch, features]}}
targets: {t: {shape: [batch]}}
layers: {out: {layer: dense, units: 1}}
equations: |
  y = sin(out(x)[:, 0] * 1000000000)
loss: mean(squared_error(y, t))
optimizer: {optimizer: sgd, learning_rate: 0.00000001}
"""


@pytest.mark.parametrize("mode", ["train", "forward"])
def test_what_nobody_can_tell_is_not_timed(tmp_path: Path, mode: str) -> None:
    spec = tmp_path / "lost.yaml"
    spec.write_text(LOST)
    with Bench(request(mode, specs=(str(spec),), sizes={}), [Entry("numpy", Launch("numpy"))]) as b:
        (result,) = b.run()
    assert result.status == "refused"
    assert "cannot be verified: in float32 every result" in result.reason


def test_record_of_an_honest_cell() -> None:
    result = run(request("train"), "honest")["honest"]
    record = result.record
    assert record.rate["unit"] == "characters"
    # 48 sequences of 8 characters.
    step = record.step["median"]
    assert record.rate["median"] == pytest.approx(48 * 8 / step)
    assert record.flops_per_second == pytest.approx(sum(record.flops.values()) / step)
    assert record.values["agrees"]
    assert record.values["compared"] > 10
    assert record.timed_way["error"] <= record.timed_way["allowed"] < 1e-3
    assert record.timed_way["compared"] > 20
    assert record.rounds_again["rounds"] == 1
    assert record.rounds_again["error"] <= record.rounds_again["allowed"]
    assert record.clock["passed"] >= record.clock["told"]
    assert record.pace["row"] > 0
    assert 0 < record.share_of_own_peak <= 1
    assert 0 < record.share_of_peak <= 1
    assert record.peak["own_by"]
    assert record.products <= sum(n for name, n in record.flops.items() if "products" in name)
    assert max(record.waits["ratios"]) >= 8
    assert record.warm_up["steps"] >= 4
    assert record.memory["resident"] > 2**20
    assert record.overhead["share"] < 1
    assert record.path == "derived"
    assert record.hardware["least_seconds"] < step
    assert results_exit_code([result]) == 0


def test_fastest_path_is_chosen_among_the_right_ones() -> None:
    record = run(request("train", path="fastest"), "honest")["honest"].record
    tried = {c["path"]: c for c in record.candidates}
    assert set(tried) == {"native", "derived"}
    assert all(c["right"] for c in tried.values())
    assert record.path == min(tried, key=lambda path: tried[path]["seconds"])


@pytest.mark.parametrize("path", ["fastest", "derived"])
@pytest.mark.parametrize(("name", "many"), [("slow_together", 1), ("slow_alone", 8)])
def test_several_steps_go_into_a_call_where_that_is_faster(name: str, many: int, path: str) -> None:
    result = undisturbed(request("train", path=path), name, many)
    assert result.measured, result.reason
    assert result.record.many == many
    assert result.record.step["median"] < 0.005


@pytest.mark.parametrize("mode", ["train", "forward"])
def test_what_a_call_costs_alone_is_no_work_that_is_left_out_in_a_row(mode: str) -> None:
    """As of JAX, where to wait for a call of eight small steps takes as long as they do."""
    result = undisturbed(request(mode, path="derived"), "dear_waiting", 8)
    assert result.measured, result.reason
    assert result.record.many == 8


def test_faults_cost_their_own_cell_only(wording: Wording) -> None:
    found = run(request("forward", timeout=5.0), "dying", "failing", "hanging", "honest")
    assert found["honest"].measured
    assert found["dying"].status == "broken"
    wording.line(found["dying"].reason, "3")
    assert found["hanging"].status == "broken"
    wording.line(found["hanging"].reason, "5.0")
    assert found["failing"].status == "refused"
    assert "ValueError: no such layer" in found["failing"].reason
    assert results_exit_code(list(found.values())) == 3


def test_a_path_that_ends_its_process_costs_itself_only(wording: Wording) -> None:
    found = run(request("train", path="fastest"), "dying_on_native", "dying")
    result = found["dying_on_native"]
    assert result.measured, result.reason
    assert result.record.path != "native"
    native, derived, *_ = result.record.candidates
    assert (native["right"], derived["right"]) == (False, True)
    said = "crashed: throughput: exit code 3 during the call"
    wording.line(native["reason"], "3")
    assert any(doubt.startswith(f"native was not timed: {said}") for doubt in result.record.doubts)
    # Where no path is left it is the process that is told of.
    assert found["dying"].status == "broken"
    wording.line(found["dying"].reason, "3")


def test_what_is_not_offered_is_no_failure(wording: Wording) -> None:
    found = run(request("forward", device="cuda"), "honest")["honest"]
    assert found.status == "unsupported"
    wording(found.reason, "'cuda' ... cpu")
    measured = replace(found, status="measured")
    assert results_exit_code([found, measured]) == 0
    assert results_exit_code([found]) == 3


def test_workers_are_gone_after_a_run() -> None:
    with Bench(request("forward"), entries("honest")) as bench:
        bench.run()
        assert isinstance(bench.timer, LocalTimer)
        workers = [*bench.timer.workers.values()]
        pids = [worker.pid for worker in workers]
    assert all(pids)
    assert all(worker.pid is None for worker in workers)
