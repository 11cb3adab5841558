"""The hand-written models compute what their specs say, in training and forward."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from baselines import ENVIRONMENT, call, started_with
from ratio_systems import MODELS, NUMPY_MODELS, SPECS, has_hand_written, sizes_of
from sampling import sampled

from harness.language.model import load_spec
from harness.timing.proofs.values import BASELINE
from harness.timing.request import Group
from harness.timing.workload import TimedCase
from harness.worker.worker import Worker

FRAMEWORKS = ("numpy", "torch", "torch-compile", "jax", "keras", "keras-torch", "keras-jax")
# The specs of benchmarks at real sizes, made small.
SMALL = {"lstm_language_model": {"vocab": 50, "units": 8}, "resnet50": {"last_side": 2}}
CASES = [(n, model) for n in FRAMEWORKS for model in MODELS if has_hand_written(model, n)]
CASES += [(n, model) for n in ("torch", "jax") for model in SMALL]
# Keras builds each model for seconds, JAX compiles it.
BASELINES = sampled(
    CASES,
    [
        (name, model)
        for name, model in CASES
        if not name.startswith(("keras", "jax"))
        or (name == "jax" and model in ("gpt", "gcn", "lstm_language_model"))
        or (name, model) == ("keras", "vae")
    ],
)
# A row whose length is 0 and one of 1 are among four.
BATCH, TIME = 4, 6


@pytest.fixture(scope="module")
def workers() -> Iterator[dict[str, Worker]]:
    started = {name: started_with(name, ENVIRONMENT[name]) for name in FRAMEWORKS}
    yield started
    for worker in started.values():
        worker.close()


@cache
def case(model: str, mode: str) -> TimedCase:
    time = TIME if model == "lstm_language_model" or sizes_of(model).time else 1
    spec, sizes = load_spec(model, (SPECS,)), SMALL.get(model, {})
    batch = 8 if model == "resnet50" else BATCH
    return TimedCase(Group(spec, mode, batch, time, sizes), "float32", 0)


@pytest.mark.parametrize("mode", ["train", "forward"])
@pytest.mark.parametrize(("name", "model"), BASELINES)
def test_results_are_those_of_the_oracle(
    workers: dict[str, Worker], name: str, model: str, mode: str
) -> None:
    worker, made = workers[name], case(model, mode)
    call(worker, "prepare", **made.payload("native", "cpu"))
    results = [call(worker, "values", first=n, count=1)[0] for n in made.compared]
    found, wanted = made.rename_results(results, {}), made.expected.values
    compared = [n for n in found if n in wanted]
    assert len(compared) == len(results), sorted(found)
    # Keras' Adam has another epsilon, which a small gradient feels. In resnet50, rounding grows
    # through 53 batch norms.
    coarse = mode == "train" and (name.startswith("keras") or model == "resnet50")
    near = BASELINE if coarse else 1e-4
    for key in compared:
        scale = np.max(np.abs(wanted[key]))
        np.testing.assert_allclose(found[key], wanted[key], rtol=0, atol=near * scale, err_msg=key)


def test_numpy_has_those_that_are_written_in_it() -> None:
    assert {model for name, model in CASES if name == "numpy"} == NUMPY_MODELS
