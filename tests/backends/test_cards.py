"""What backends do with cards: decided by the device of a session, not by what the machine has.

No card is needed: the frameworks' own calls are recorded.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from wording import Wording

from harness.backends.keras import backend as keras_backend
from harness.backends.keras import tensorflow_engine
from harness.errors import UsageError
from harness.extend import card_of, device_names
from harness.runtime.plugins import load
from harness.worker.answers import check_greeting
from harness.worker.remote import missing_requirement
from harness.worker.serve import _greeting

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("device", "card"),
    [("cpu", None), ("cuda", 0), ("cuda:0", 0), ("cuda:12", 12), ("cuda:x", None), ("meta", None)],
)
def test_a_name_stands_for_a_card(device: str, card: int | None) -> None:
    assert card_of(device) == card


def test_every_card_has_a_name() -> None:
    assert device_names(0) == ("cpu",)
    assert device_names(2) == ("cpu", "cuda", "cuda:0", "cuda:1")


# --- torch -------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What is asked of torch.cuda, as if there were two cards."""
    found: list[tuple[str, Any]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("synchronize", "max_memory_allocated", "reset_peak_memory_stats"):

        def record(device: Any = None, name: str = name) -> int:
            found.append((name, device))
            return 7

        monkeypatch.setattr(torch.cuda, name, record)
    return found


def test_torch_offers_each_card(calls: list[Any]) -> None:
    backend = load("torch")
    assert backend.devices() == ("cpu", "cuda", "cuda:0", "cuda:1")
    assert "tf32" in backend.dtypes()


def test_torch_on_an_apple_processor_has_no_float64(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: calls.append(("synchronize", "mps")))
    backend = load("torch")
    hello = check_greeting(_greeting("torch", backend), "torch")
    assert hello["devices"] == ["cpu", "cuda", "cuda:0", "cuda:1", "mps"]
    text = "device 'mps' has no dtype 'float64'"
    assert missing_requirement(hello, "mps", "float64") == text
    assert missing_requirement(hello, "mps", "float32") == ""
    assert missing_requirement(hello, "cpu", "float64") == ""
    backend.device = "mps"
    backend.wait({})
    assert calls == [("synchronize", "mps")]
    assert not backend.repeats()
    assert backend.device_memory() is None


def test_a_cpu_session_of_torch_asks_cuda_for_nothing(calls: list[Any]) -> None:
    backend = load("torch")
    backend.use("cpu", "float32")
    backend.forget_device_memory()
    backend.wait({"x": backend.tensor(np.ones(3, np.float32))})
    assert backend.device_memory() is None
    assert backend.repeats()
    assert calls == []


def test_a_card_s_session_of_torch_is_of_that_card(calls: list[Any]) -> None:
    backend = load("torch")
    backend.use("cuda:1", "float32")
    backend.forget_device_memory()
    backend.wait({})
    assert backend.device_memory() == 7
    assert not backend.repeats()
    asked = ["reset_peak_memory_stats", "synchronize", "max_memory_allocated"]
    assert calls == [(name, "cuda:1") for name in asked]


@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float64"])
def test_torch_multiplies_in_the_precision_that_was_asked_for(dtype: str) -> None:
    backend = load("torch")
    backend.use("cpu", dtype)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    wanted = "tf32" if dtype == "tf32" else "ieee"
    assert {matmul.fp32_precision, cudnn.rnn.fp32_precision, cudnn.conv.fp32_precision} == {wanted}
    assert not matmul.allow_bf16_reduced_precision_reduction
    assert not matmul.allow_fp16_reduced_precision_reduction
    found = backend.settings()
    assert {found["tf32"], found["tf32 of cuDNN"]} == {str(dtype == "tf32")}
    assert {found["bfloat16 sums"], found["float16 sums"]} == {"False"}
    backend.use("cpu", "float32")


def test_torch_repeats_bits_where_asked() -> None:
    backend = load("torch")
    backend.deterministic = True
    try:
        backend.use("cpu", "float32")
        assert torch.are_deterministic_algorithms_enabled()
        assert backend.settings()["deterministic"] == "True"
    finally:
        backend.deterministic = False
        backend.use("cpu", "float32")
    assert not torch.are_deterministic_algorithms_enabled()


# --- Keras on TensorFlow -----------------------------------------------------------------------


class FakeTensorFlow:
    """Two cards, and a record of what is asked of them."""

    def __init__(self, started: bool = False, logical: int = 2) -> None:
        self.asked: list[Any] = []

        def visible(devices: list[Any], kind: str) -> None:
            if started:
                raise RuntimeError("Visible devices cannot be modified after being initialized")
            self.asked.append(("visible", devices, kind))

        def told(name: str) -> Any:
            return lambda *given: self.asked.append((name, *given)) or {"peak": 11}

        experimental = SimpleNamespace(
            enable_tensor_float_32_execution=told("tf32"),
            tensor_float_32_execution_enabled=lambda: False,
            enable_op_determinism=told("deterministic"),
            reset_memory_stats=told("reset"),
            get_memory_info=told("memory"),
        )
        self.config = SimpleNamespace(
            experimental=experimental,
            list_physical_devices=lambda kind: ["one", "two"],
            list_logical_devices=lambda kind: ["one", "two"][:logical],
            set_visible_devices=visible,
        )
        self.add = told("add")
        self.test = SimpleNamespace(experimental=SimpleNamespace(sync_devices=told("sync")))

    def function(self, step: Any, **options: Any) -> Any:
        self.asked.append(("function", options["jit_compile"]))
        return step


def engine(monkeypatch: pytest.MonkeyPatch, fake: FakeTensorFlow) -> Any:
    monkeypatch.setattr(tensorflow_engine, "import_module", lambda name: fake)
    return tensorflow_engine.TensorFlowEngine()


def test_tensorflow_decides_by_device_and_not_by_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTensorFlow()
    found = engine(monkeypatch, fake)
    assert found.devices() == ("cpu", "cuda", "cuda:0", "cuda:1")
    found.use("cpu", "float32")
    found.advance(len)
    found.wait({})
    found.forget_device_memory()
    assert found.device_memory() is None
    assert fake.asked == [("visible", [], "GPU"), ("tf32", False), ("function", True)]
    assert found.settings()["xla"] == "True"
    assert found.index == "int32"


def test_tensorflow_on_a_card_leaves_layers_to_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTensorFlow()
    found = engine(monkeypatch, fake)
    found.deterministic = True
    found.use("cuda:1", "tf32")
    found.advance(len)
    found.wait({})
    found.forget_device_memory()
    assert found.device_memory() == 11
    assert fake.asked == [
        ("tf32", True),
        ("deterministic",),
        ("function", False),
        ("sync",),
        ("reset", "GPU:1"),
        ("memory", "GPU:1"),
    ]
    assert found.settings()["xla"] == "False"
    assert found.index == "int64"  # those of int32 lie in the host's memory


def test_tensorflow_that_has_started_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    engine(monkeypatch, FakeTensorFlow(started=True)).use("cpu", "float32")


def test_tensorflow_without_the_card_does_not_run_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
    wording: Wording,
) -> None:
    with wording.raises(UsageError, "1 ... 1"):
        engine(monkeypatch, FakeTensorFlow(logical=1)).use("cuda:1", "float32")


@pytest.mark.parametrize(
    ("device", "quick", "named"), [("cpu", True, "cpu:0"), ("cuda:1", False, "gpu:1")]
)
def test_keras_starts_what_a_session_is_of_before_it_names_it(
    device: str, quick: bool, named: str
) -> None:
    asked: list[Any] = []
    config = SimpleNamespace(set_floatx=asked.append, set_dtype_policy=asked.append)
    found: Any = SimpleNamespace(
        engine=SimpleNamespace(cpu="cpu:0", use=lambda *given: asked.append(given)),
        keras=SimpleNamespace(
            config=config, device=lambda name: asked.append(name) or nullcontext()
        ),
        quick=True,
        deterministic=False,
        _device=None,
    )
    keras_backend.Keras.use(found, device, "tf32")
    card = card_of(device)
    assert asked == [(device, "tf32"), named, "float32", "float32"]
    # On a card the quick way is another computation: what is checked is to be what is timed.
    assert found.engine.quick == quick
    assert keras_backend.Keras.repeats(found) == (card is None)
