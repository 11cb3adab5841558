"""A timing on a card: what is measured beside it, and at which sizes. No card is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from needed import need
from wording import Wording

from harness.backends.numpy.backend import Numpy
from harness.checking.request import Request, make_case
from harness.language.model import load_spec
from harness.program.serial import encoded
from harness.runtime import step_service
from harness.runtime.plugins import load
from harness.runtime.precision import WIDTHS
from harness.runtime.service import SessionService
from harness.runtime.step_service import PeakMeter, StepService, bandwidth_numbers
from harness.timing import card, rates
from harness.timing.card import list_slowdowns, split_memory, watch_gpu
from harness.timing.contestant import Record
from harness.timing.rates import large_product
from harness.worker.cards import CardState

L2 = 50_000_000
"""Bytes of the second cache of an H100."""


@pytest.mark.parametrize("dtype", WIDTHS)
def test_bandwidth_is_that_of_no_cache(dtype: str) -> None:
    assert bandwidth_numbers("cuda:1", dtype) * WIDTHS[dtype] >= 10 * L2
    assert bandwidth_numbers("cpu", dtype) == 1 << 24


def test_the_product_of_a_peak_fills_a_card() -> None:
    assert large_product("cpu") == (2048, 2048, 2048)
    assert large_product("cuda") == (8192, 8192, 8192)


@pytest.mark.parametrize(("device", "size"), [("cpu", 2048), ("cuda", 8192)])
def test_a_share_is_of_the_peak_of_its_device(
    monkeypatch: pytest.MonkeyPatch, device: str, size: int
) -> None:
    monkeypatch.setattr(rates, "largest_product", lambda case: (2, 3, 4))
    peaks = {(100, (size,) * 3): 8e9, (100, (2, 3, 4)): 4e9}
    one = contestant(device)
    one.peaks, one.result = peaks, SimpleNamespace(measured=True)
    one.case, one.record.step = SimpleNamespace(products=1000), {"median": 1e-6}
    one.entry.baseline, one.entry.label = False, "torch"
    rates.compare_with_peaks([one])
    assert (one.record.share_of_peak, one.record.share_of_own_peak) == (0.125, 0.25)
    assert one.record.peak["large_size"] == [size] * 3


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 4)])
def test_bytes_that_were_moved_are_those_of_the_dtype(
    monkeypatch: pytest.MonkeyPatch, dtype: str, width: int
) -> None:
    need("torch")
    monkeypatch.setattr(step_service, "LARGE_ARRAY", 1000)
    backend = load("torch")
    backend.use("cpu", dtype)
    service = StepService(backend)
    monkeypatch.setattr(PeakMeter, "_seconds", lambda one, run, a, b: 1.0 + 0.0 * len(run(a, b)))
    assert service.peaks(dtype, [[2, 3, 4]]) == {"products": [48.0], "bandwidth": 3000.0 * width}
    backend.use("cpu", "float32")


class Forgetful(Numpy):
    """A device of its own, whose peak is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten = 0

    def forget_device_memory(self) -> None:
        self.forgotten += 1


def test_peaks_are_those_since_a_pipeline_was_prepared() -> None:
    service: Any = StepService(backend := Forgetful())
    session = SimpleNamespace(paths=dict)
    pipeline = SimpleNamespace(many=1, restart=lambda: None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(step_service, "open_session", lambda *given: session)
        patched.setattr(step_service, "Pipeline", lambda *given: pipeline)
        given = dict.fromkeys(("training", "inference", "rule", "mode", "parameters"))
        more = {"statistics": {}, "state": {}, "batches": [], "learning_rate": 0.1}
        service.prepare(**given, **more, path="native", dtype="float32", device="cpu")
    assert backend.forgotten == 1
    service.select("native")
    assert backend.forgotten == 2


class Prepared(Numpy):
    """Keeps what it is prepared for."""

    def __init__(self) -> None:
        super().__init__()
        self.used: list[tuple[str, str]] = []

    def use(self, device: str, dtype: str) -> None:
        self.used.append((device, dtype))
        super().use("cpu", dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_check_runs_in_the_precision_that_is_timed(dtype: str) -> None:
    case = make_case(load_spec("lesson6/simple_rnn"), Request(), own=False)
    service: Any = SessionService(backend := Prepared())
    given = {"training": encoded(case.training), "inference": encoded(case.inference)}
    given |= {"rule": encoded(case.spec.update), "dtype": dtype, "device": "cuda:1"}
    service.open(**given, path="native", quick=True)
    material = case.material
    batches = [{"inputs": material.inputs, "targets": material.targets}]
    more = {"parameters": material.parameters, "statistics": material.statistics}
    more |= {"state": material.state, "batches": batches, "learning_rate": 0.1}
    service.prepare(**given, **more, path="native", mode="train")
    assert backend.used == [("cuda:1", dtype)] * 2


def contestant(device: str = "cuda") -> Any:
    launch = SimpleNamespace(environment={"CUDA_VISIBLE_DEVICES": "1"})
    entry, worker = SimpleNamespace(launch=launch), SimpleNamespace(pid=100)
    return SimpleNamespace(device=device, entry=entry, worker=worker, record=Record())


class Seen:
    """What stands in the place of a watch."""

    states = (CardState("GPU-2", 1700.0, 2600.0, 60.0, 300.0, 5000, ("power cap",)),)

    def __enter__(self) -> Seen:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_the_record_has_the_card_and_who_else_is_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "Watch", Seen)
    monkeypatch.setattr(card, "cards", lambda: [{"uuid": "GPU-1"}, {"uuid": "GPU-2"}])
    monkeypatch.setattr(card, "processes", lambda uuid: {100: 3000, 200: 1000})
    one = contestant()
    with watch_gpu([one]):
        pass
    assert one.record.plain()["card"] == {
        "uuid": "GPU-2",
        "looks": 1,
        "sm_mhz": [1700.0, 1700.0],
        "memory_mhz": [2600.0, 2600.0],
        "temperature": 60.0,
        "power": 300.0,
        "used": 5000,
        "reasons": ["power cap"],
        "own_bytes": 3000,
        "others_bytes": 2000,
    }


def test_a_run_on_the_cpu_asks_for_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "Watch", None)
    one = contestant("cpu")
    with watch_gpu([one]):
        pass
    assert one.record.card == {}


def test_memory_that_the_driver_does_not_tell_is_not_told() -> None:
    assert split_memory({100: None}, 100, 5000) == {"own_bytes": None, "others_bytes": None}
    assert split_memory({}, 100, 5000) == {"own_bytes": None, "others_bytes": None}
    assert split_memory({100: 10}, 100, None) == {"own_bytes": 10, "others_bytes": None}


def test_a_card_that_slowed_down_makes_a_speed_doubtful(wording: Wording) -> None:
    assert list_slowdowns({}) == []
    assert list_slowdowns({"reasons": ["idle", "power cap"]}) == []
    (doubt,) = list_slowdowns({"reasons": ["power brake", "thermal slowdown by hardware"]})
    wording(doubt)
