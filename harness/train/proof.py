"""The first steps of a training, held against the oracle before it goes on.

Two things are looked at: the first few steps, one by one, against the oracle; and as many as go
into one sum of losses, in the way in which the training goes on, against the same steps one by one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.arrays import ArrayDict
from harness.errors import HarnessError
from harness.oracle.case import state_of, step_values
from harness.oracle.patience import OracleFault, Patience, at_work, with_patience
from harness.oracle.rounding import shaken
from harness.oracle.tolerance import FLOOR, PRECISION, Deviation
from harness.oracle.tolerance import worst as furthest
from harness.oracle.yardstick import FEW, Expected, Reference, apart
from harness.program.signature import group_of
from harness.runtime.arguments import Arguments
from harness.runtime.precision import host_dtype
from harness.runtime.session import Session
from harness.spec.initial_values import initial_parameters, initial_state, initial_statistics
from harness.train.closer import look_closer
from harness.train.remote import TrainRemote
from harness.train.trainer import SUMMED

# Steps that the oracle makes, too, and the seconds that it may take for them.
STEPS, PATIENCE = 3, 60.0
# Seconds that the steps of one of the two ways may take: of a slow step there are fewer.
SECONDS = 1.0


class Disproved(HarnessError):
    """The first steps of a training are not those of the oracle."""


def prove(remote: TrainRemote) -> dict[str, Any]:
    """Prove the steps of a training that has begun in a worker; it must be loaded anew after.

    Returns what the record says of it: ``steps`` that the oracle made too, or ``why`` it has none;
    ``in_a_row``, the steps that were made in both ways; ``worst``, ``error`` and ``allowed`` of the
    furthest tensor; ``seconds``.

    Raises:
        Disproved: a step is wrong.
        TrainingError: the worker fails.
    """
    proof, began = _Proof(remote), time.perf_counter()
    told: dict[str, Any] = {}
    deviations: list[Deviation] = []
    try:
        with with_patience(Patience(PATIENCE)), at_work():
            deviations += proof.by_the_oracle()
        told["steps"] = proof.few
    except OracleFault as fault:
        told |= {"steps": 0, "why": str(fault)}
    proof.many = proof.affordable()
    deviations += proof.in_a_row()
    told["in_a_row"] = proof.many
    last = furthest(deviations)
    told |= {"worst": last.name, "error": last.error, "allowed": last.tolerance}
    told["seconds"] = time.perf_counter() - began
    if not last.agrees:
        request = remote.setup.request
        at = (request.spec, request.backend, request.device, request.folders, request.sizes)
        raise Disproved(
            f"the first steps on {request.backend} are wrong, so nothing was trained: {last}; "
            f"--no-proof trains all the same; {look_closer(*at)}"
        )
    return told


class _Proof:
    def __init__(self, remote: TrainRemote) -> None:
        self.remote, self.setup = remote, remote.setup
        setup, seed = self.setup, self.setup.request.seed
        self.rate, self.batches = setup.rates[0], setup.feed.epoch(0)
        self.few, self.many = min(STEPS, len(self.batches)), min(SUMMED, len(self.batches))
        self.parameters = initial_parameters(setup.training, seed)
        self.statistics = initial_statistics(setup.training)
        self.dtype = setup.request.dtype

    def by_the_oracle(self) -> list[Deviation]:
        """The first steps, by the oracle and by the worker."""
        setup = self.setup
        reference = Reference(setup.training, setup.inference, setup.spec.update, orders=FEW)
        expected = reference.expect(lambda session: [self._oracle(session)])
        return expected.deviations(self._made(self.parameters, [1] * self.few), self.dtype)

    def affordable(self) -> int:
        """How many steps are made in a row and one by one; the worker has made some already."""
        self._made(self.parameters, [1])
        began = time.perf_counter()
        self.remote.run(self.rate, 0, 1 % len(self.batches), 1)
        most = int(SECONDS / (time.perf_counter() - began))
        return min(self.many, max(most, self.few))

    def in_a_row(self) -> list[Deviation]:
        """As many steps as there are in a sum, in a row and one by one."""
        row = self._made(self.parameters, [self.many])
        single = self._made(self.parameters, [1] * self.many)
        start = shaken(self.parameters, self.dtype, np.random.default_rng(0))
        # Where rounding sends a step elsewhere, it does so from shaken parameters as well.
        noise = apart(single, self._made(start, [1] * self.many))
        least = FLOOR * PRECISION[self.dtype] * self.many
        noise = {n: max(e, least) for n, e in noise.items()}
        expected = Expected.within(single, noise, self.dtype)
        return expected.deviations(row, self.dtype)

    def _made(self, parameters: ArrayDict, calls: list[int]) -> ArrayDict:
        """What some calls of the worker have left, each of so many steps, and the sum of losses."""
        self.remote.load(parameters, self.statistics)
        done, total = 0, 0.0
        for count in calls:
            total += sum(self.remote.run(self.rate, 0, done, count))
            done += count
        return self._values(done, total, self.remote.snapshot(), parameters)

    def _oracle(self, session: Session) -> ArrayDict:
        total = 0.0
        session.load(self.parameters, self.statistics)
        state = initial_state(session.programs["training"], len(self.batches[0]))
        for number, rows in enumerate(self.batches[: self.few]):
            arrays = self.setup.feed.batch(rows, step=number)
            inputs, targets = group_of(arrays, "input."), group_of(arrays, "target.")
            results = session.step(inputs, state, targets, self.rate)
            state = state_of(results)
            total += float(results["loss"]) * len(rows)
        return self._values(self.few, total, session.read(), self.parameters)

    def _values(
        self, steps: int, total: float, left: Mapping[str, Any], start: ArrayDict
    ) -> ArrayDict:
        material = Arguments(start, self.statistics, {}, {}, {})
        found = step_values(steps, {"results": {}, **left}, material)
        return {**found, "sum of losses": np.asarray(total, host_dtype(self.dtype))}
