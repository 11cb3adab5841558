"""The hand-written baselines compute what their specs say: else their speed means nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from baselines import ENVIRONMENT, TIMEOUT, call, started_with
from places import TESTS
from sampling import sampled

from harness.language.library import lesson6
from harness.language.model import Spec, load_spec
from harness.oracle.draw import draw
from harness.oracle.oracle import Oracle
from harness.program.serial import encoded
from harness.runtime.session import Session
from harness.worker.worker import Worker

SPECS = TESTS / "benchmarks" / "specs"
SYSTEMS = (*lesson6(), "sigmoid_lstm", "index_gru")
FRAMEWORKS = tuple(name for name in ENVIRONMENT if name not in ("python", "onnxruntime"))
BATCH, STEPS, BATCHES = 4, 3, 2


@pytest.fixture(scope="module")
def workers() -> Iterator[dict[str, Worker]]:
    started = {name: started_with(name, more) for name, more in ENVIRONMENT.items()}
    yield started
    for worker in started.values():
        worker.close()


class Given:
    """A system with its parameters and batches, and what the oracle makes of them."""

    def __init__(self, system: str) -> None:
        self.spec: Spec = load_spec(system, [SPECS])
        self.training = self.spec.program("training")
        self.inference = self.spec.program("inference")
        self.rate = self.spec.model.training.phases[0].learning_rate
        time = self.spec.model.data.windows.length
        self.material, *others = (draw(self.training, BATCH, time, n) for n in range(BATCHES))
        self.batches = [
            {"inputs": m.inputs, "targets": m.targets} for m in (self.material, *others)
        ]

    def payload(self, mode: str) -> dict[str, Any]:
        """What ``prepare`` takes."""
        return {
            "training": encoded(self.training),
            "inference": encoded(self.inference),
            "rule": encoded(self.spec.update),
            "path": "native",
            "dtype": "float32",
            "device": "cpu",
            "mode": mode,
            "parameters": self.material.parameters,
            "statistics": self.material.statistics,
            "state": self.material.state,
            "batches": self.batches,
            "learning_rate": self.rate,
        }

    @cache  # noqa: B019 - lives as long as the module's tests
    def expected(self, mode: str) -> list[dict[str, Any]]:
        """The loss, or the outputs, of each step in float64; the state is carried."""
        session = Session(
            Oracle(),
            self.training,
            self.inference,
            path="derived",
            dtype="float64",
            rule=self.spec.update,
        )
        session.load(self.material.parameters, self.material.statistics)
        state, steps = self.material.state, []
        for index in range(STEPS):
            batch = self.batches[index % BATCHES]
            if mode == "train":
                results = session.step(batch["inputs"], state, batch["targets"], self.rate)
            else:
                results = session.forward("inference", batch["inputs"], state)
            state = {n: results[f"state.{n}"] for n in state}
            steps.append(results)
        return steps


given = cache(Given)


# Keras builds each model for seconds.
BASELINES = sampled(
    [(name, system) for name in FRAMEWORKS for system in SYSTEMS],
    [
        (name, system)
        for name in FRAMEWORKS
        for system in SYSTEMS
        if not name.startswith("keras") or (name, system) == ("keras", "lesson6/keras_gru")
    ],
)


@pytest.mark.parametrize(("name", "system"), BASELINES)
def test_three_losses_are_those_of_the_oracle(
    workers: dict[str, Worker], name: str, system: str
) -> None:
    compare_losses(workers[name], given(system))


@pytest.mark.slow
@pytest.mark.thorough
def test_compiled_losses_are_those_of_the_oracle() -> None:
    worker = started_with("torch-compile", {})
    try:
        compare_losses(worker, given("index_gru"))
    finally:
        worker.close()


def test_the_notebooks_loop_has_the_losses_of_the_oracle(workers: dict[str, Worker]) -> None:
    compare_losses(workers["python"], given("lesson6/pure_python_rnn"))


def compare_losses(worker: Worker, case: Given) -> None:
    call(worker, "prepare", **case.payload("train"))
    found = [float(step["loss"]) for step in call(worker, "values", first=0, count=STEPS)]
    wanted = [float(step["loss"]) for step in case.expected("train")]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize(("name", "system"), BASELINES)
def test_probabilities_are_those_of_the_oracle(
    workers: dict[str, Worker], name: str, system: str
) -> None:
    compare_probabilities(workers[name], given(system))


@pytest.mark.parametrize("system", SYSTEMS)
def test_probabilities_of_onnxruntime_are_those_of_the_oracle(
    workers: dict[str, Worker], system: str
) -> None:
    compare_probabilities(workers["onnxruntime"], given(system))


def test_onnxruntime_does_not_train(workers: dict[str, Worker]) -> None:
    payload = given("lesson6/sequence_rnn").payload("train")
    outcome = workers["onnxruntime"].call("prepare", payload, TIMEOUT)
    assert "only forward" in outcome.cause


def compare_probabilities(worker: Worker, case: Given) -> None:
    call(worker, "prepare", **case.payload("forward"))
    found = call(worker, "values", first=0, count=STEPS)
    for index, (step, wanted) in enumerate(zip(found, case.expected("forward"), strict=True)):
        probabilities = {n for n in wanted if n.startswith("output.next_")}
        assert probabilities <= set(step), f"step {index} gave {sorted(step)}"
        for output in probabilities:
            np.testing.assert_allclose(
                step[output], wanted[output], rtol=1e-4, atol=1e-6, err_msg=f"{index} {output}"
            )


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_a_baseline_starts_anew_and_takes_other_batches(
    workers: dict[str, Worker], name: str
) -> None:
    case, worker = given("lesson6/stateful_lstm"), workers[name]
    call(worker, "prepare", **case.payload("train"))

    def losses() -> list[float]:
        return [float(step["loss"]) for step in call(worker, "values", first=0, count=STEPS)]

    first = losses()
    assert losses() != first, "training goes on"
    call(worker, "restart")
    assert losses() == first
    call(worker, "feed", batches=case.batches[::-1])
    call(worker, "restart")
    assert losses()[0] != first[0]


def test_a_baseline_is_timed(workers: dict[str, Worker]) -> None:
    worker = workers["numpy"]
    prepared = call(worker, "prepare", **given("lesson6/sequence_rnn").payload("train"))
    assert prepared["paths"] == {"model": "native_numpy"}
    assert prepared["seconds"] > 0
    latencies = call(worker, "latency", first=0, count=4)
    assert len(latencies) == 4
    assert min(latencies) > 0
    assert call(worker, "throughput", first=0, count=8) > min(latencies)
    memory = call(worker, "memory")
    assert memory["resident"] > 10 << 20
    assert memory["device"] is None
