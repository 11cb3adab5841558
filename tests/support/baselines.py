"""Workers of the hand-written baselines, and calls to them."""

from __future__ import annotations

from typing import Any

from places import TESTS

from harness.worker.launch import Launch
from harness.worker.worker import Worker

FOLDER = TESTS / "benchmarks" / "native"
# Keras reads its engine when it is imported; TensorFlow logs to the terminal unless told not to.
ENVIRONMENT: dict[str, dict[str, str]] = {
    "numpy": {},
    "torch": {},
    "torch-compile": {"TORCHDYNAMO_DISABLE": "1"},  # as it is written: a compiler takes minutes
    "onnxruntime": {},
    "jax": {},
    "keras": {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"},
    "keras-torch": {"KERAS_BACKEND": "torch"},
    "keras-jax": {"KERAS_BACKEND": "jax"},
    "python": {},
}
TIMEOUT = 300.0


def started_with(name: str, environment: dict[str, str]) -> Worker:
    """The worker of a baseline; it starts when it is first asked."""
    everything = {"PYTHONPATH": str(FOLDER), **environment}
    return Worker(Launch(name, handler="worker:handler", environment=everything))


def call(worker: Worker, verb: str, **payload: Any) -> Any:
    """What a verb gives; it must not fail."""
    outcome = worker.call(verb, payload, TIMEOUT)
    assert outcome.ok, f"{outcome.cause}\n{outcome.traceback}\n{outcome.log}"
    return outcome.value
