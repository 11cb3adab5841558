"""Workers of the hand-written baselines, and calls to these workers."""

from __future__ import annotations

from typing import Any

from places import TESTS

from harness.worker.launch import Launch
from harness.worker.worker import Worker

FOLDER = TESTS / "benchmarks" / "native"
# Keras reads the name of its engine when it is imported. TensorFlow logs to the terminal by
# default.
ENVIRONMENT: dict[str, dict[str, str]] = {
    "numpy": {},
    "torch": {},
    "torch-compile": {"TORCHDYNAMO_DISABLE": "1"},  # uncompiled: compiling takes minutes
    "onnxruntime": {},
    "jax": {},
    "keras": {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"},
    "keras-torch": {"KERAS_BACKEND": "torch"},
    "keras-jax": {"KERAS_BACKEND": "jax"},
    "python": {},
}
TIMEOUT = 300.0


def started_with(name: str, environment: dict[str, str]) -> Worker:
    """Return the worker of a baseline; it starts at its first call."""
    everything = {"PYTHONPATH": str(FOLDER), **environment}
    return Worker(Launch(name, handler="worker:handler", environment=everything))


def call(worker: Worker, verb: str, **payload: Any) -> Any:
    """Return the answer of a worker to a call; assert that the call does not fail."""
    outcome = worker.call(verb, payload, TIMEOUT)
    assert outcome.ok, f"{outcome.cause}\n{outcome.traceback}\n{outcome.log}"
    return outcome.value
