"""Answers the verbs of a timed worker with a hand-written baseline in place of a backend.

Started as ``worker:handler`` with this folder on the import path. The name of the worker decides
the framework; KERAS_BACKEND must agree with it.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contract import Given

from harness.files.system import forget_peak_memory, peak_memory
from harness.program.serial import decoded
from harness.runtime.step_loop import Clock

MODULES: Mapping[str, str] = {
    "torch": "native_torch",
    "torch-compile": "native_torch_compiled",
    "onnxruntime": "native_onnxruntime",
    "numpy": "native_numpy",
    "jax": "native_jax",
    "keras": "native_keras",
    "keras-torch": "native_keras",
    "keras-jax": "native_keras",
    "python": "pure_python",
}
# The models of specs/models and of real size, which are written in files of their own.
MODELS = frozenset(
    path.stem for path in (Path(__file__).parents[3] / "specs" / "models").glob("*.yaml")
) | {"lstm_language_model", "resnet50"}
OF_MODELS: Mapping[str, str] = {
    "torch": "models_torch",
    "torch-compile": "models_torch_compiled",
    "numpy": "models_numpy",
    "jax": "models_jax",
    "keras": "models_keras",
    "keras-torch": "models_keras",
    "keras-jax": "models_keras",
}

Payload = dict[str, Any]


class Native:
    """The verbs, for the model that was prepared last."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._module = MODULES[name]
        self._given: Payload = {}
        self._dtype = np.dtype("float32")

    def prepare(
        self,
        training: Any,
        inference: Any,
        rule: Any,
        path: str,
        dtype: str,
        device: str,
        mode: str,
        parameters: Payload,
        statistics: Payload,
        state: Payload,
        batches: Sequence[Payload],
        learning_rate: float,
    ) -> Payload:
        """Build the baseline of the program's name; ``seconds`` is how long that took."""
        if device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # read when the framework is imported
        self._dtype = np.dtype(dtype)
        update, program = decoded(rule), decoded(training)
        system = program.name.rpartition("/")[2]
        self._module = (OF_MODELS if system in MODELS else MODULES)[self.name]
        self._given = {
            "system": system,
            "mode": mode,
            "parameters": self._cast(parameters),
            "statistics": self._cast(statistics),
            "state": self._cast(state),
            "learning_rate": learning_rate,
            "optimizer": {"optimizer": update.name, **update.attributes},
            "sizes": program.sizes,
        }
        start = time.perf_counter()
        self._batches = self._cast(batches)
        self.restart()
        return {"paths": {"model": self._module}, "seconds": time.perf_counter() - start}

    def restart(self) -> None:
        """Parameters, statistics, state and optimizer as they were at the start."""
        make = importlib.import_module(self._module).make
        self._clock = Clock(make(Given(batches=self._batches, **self._given)))

    def feed(self, batches: Sequence[Payload]) -> None:
        """Other batches of the same shapes; the model goes on from where it is."""
        self._batches = self._cast(batches)
        self._clock.steps.feed(self._batches)

    def latency(self, first: int, count: int) -> list[float]:
        """Seconds of each step, every one waited for."""
        return self._clock.latency(first, count)

    def throughput(self, first: int, count: int) -> float:
        """Seconds of many steps with one wait at their end."""
        return self._clock.throughput(first, count)

    def values(self, first: int, count: int) -> list[Payload]:
        """The results of each step."""
        return self._clock.values(first, count)

    def forget_peaks(self) -> None:
        """Free unused memory, and let :meth:`memory` count from now on."""
        forget_peak_memory()

    def memory(self) -> Payload:
        """Peak resident bytes of the process since :meth:`forget_peaks`."""
        return {"resident": peak_memory(), "device": None}

    def _cast(self, value: Any) -> Any:
        """Floats at the dtype that is asked for, copied; indices and masks stay what they are."""
        if isinstance(value, Mapping):
            return {name: self._cast(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._cast(item) for item in value]
        array = np.asarray(value)
        kinds = {"f": self._dtype, "b": np.dtype(bool)}
        return np.array(array, kinds.get(array.dtype.kind, np.int64))


def handler(name: str) -> Callable[[str, Payload], Any]:
    """What answers the calls to the worker of a framework."""
    native = Native(name)

    def answer(verb: str, payload: Payload) -> Any:
        return getattr(native, verb)(**payload)

    return answer
