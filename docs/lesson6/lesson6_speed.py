"""Measurement of training speed: with batches from a text, and with batches on the device.

One worker alternates between ``harness train`` and ``harness bench``, with the same program, path,
optimizer and batches. The difference is the time of the data pipeline and of summing losses. As in
``harness bench``, steps are timed singly and several per call, and the faster result is used.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from harness.language.initial_values import initial_parameters, initial_state, initial_statistics
from harness.program.serial import encoded
from harness.program.signature import group_of
from harness.timing.workload import ROTATING
from harness.training.remote import TrainRemote
from harness.training.request import Setup, TrainRequest, prepare
from harness.training.run import load_initial
from harness.training.service import PREFIX, SUMMED, TrainService
from harness.worker.answers import Forms
from harness.worker.remote import Remote, WorkerFault, call_worker
from harness.worker.worker import Worker

# The seconds of one measurement, and the number of rounds. A measurement trains a multiple of the
# number of steps over which losses are summed.
ROUND, ROUNDS = 0.25, 7
TIMEOUT = 300.0
TRAINING = Forms(TrainService, PREFIX)


def measure_speed(system: str, backend: str, text: str) -> dict[str, Any]:
    """Return the seconds per step of ``train`` and of ``bench`` in each round."""
    setup = prepare(TrainRequest(f"lesson6/{system}", backend, text=text))
    with Worker(setup.request.launch) as worker:
        remote = Remote(worker, TIMEOUT)
        _begin(remote, setup)
        steps = len(setup.feed.epoch(0))
        whole = min(SUMMED, steps)
        count = whole

        def train(first: int) -> float:
            start = first % max(1, steps - count + 1) // whole * whole
            return _train(remote, setup, start, count)

        def bench(together: bool) -> float:
            remote.call("together", wanted=together)
            return float(remote.call("throughput", first=0, count=count)) / count

        train(0), bench(together=True), bench(together=False)  # compile, and fill caches
        count = min(steps // whole, max(1, int(ROUND / bench(together=True) / whole))) * whole
        trained: list[float] = []
        benched: tuple[list[float], list[float]] = ([], [])
        for number in range(ROUNDS):
            trained.append(train(number * count))
            for together, times in enumerate(benched):
                times.append(bench(bool(together)))
    return {"train": trained, "bench": min(benched, key=median), "steps": count}


def _begin(remote: Remote, setup: Setup) -> None:
    """Prepare the worker for ``bench`` and for ``train``, with the same initial parameters."""
    request, training = setup.request, setup.training
    arrays = [setup.feed.batch(rows) for rows in setup.feed.epoch(0)[:ROTATING]]
    remote.call(
        "prepare",
        training=encoded(training),
        inference=encoded(setup.inference),
        rule=encoded(setup.spec.update),
        path=request.path,
        dtype=request.dtype,
        device=request.device,
        mode="train",
        parameters=initial_parameters(training, request.seed),
        statistics=initial_statistics(training),
        state=initial_state(training, setup.recipe.batch),
        batches=[
            {"inputs": group_of(a, "input."), "targets": group_of(a, "target.")} for a in arrays
        ],
        learning_rate=setup.rates[0],
    )

    trained = TrainRemote(remote.worker, setup)
    trained.begin(request.path)
    load_initial(trained)


def _train(remote: Remote, setup: Setup, first: int, count: int) -> float:
    payload = {"rate": setup.rates[0], "epoch": 0, "first": first, "count": count}
    outcome = call_worker(remote.worker, TRAINING, "train_run", payload, TIMEOUT)
    if not outcome.ok:
        raise WorkerFault("train_run", outcome)
    return outcome.seconds / count
