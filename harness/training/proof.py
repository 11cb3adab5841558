"""Comparison of the first steps of a training with the oracle, before the training starts.

The check has three parts:

- Single steps are compared with the oracle: the first three, a step on a smaller last batch, and a
  step at the next learning rate. The last two are included because each needs its own compilation.
- The loss of a held-out batch is compared with the oracle.
- Steps that the worker makes in a single call, as in the training, are compared with the same steps
  made one by one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.errors import HarnessError, UsageError
from harness.language.initial_values import initial_parameters, initial_state, initial_statistics
from harness.oracle.case import state_of, step_values, with_parameter_rounding
from harness.oracle.rounding import perturbed
from harness.oracle.time_limit import OracleFault, TimeLimit, with_time_limit, within_limits
from harness.oracle.tolerance import FLOOR, PRECISION, Deviation
from harness.oracle.tolerance import worst as furthest
from harness.oracle.yardstick import FEW, Expected, Reference, noise_between
from harness.output.shell import command_line
from harness.program.signature import group_of
from harness.program.updates import UPDATES
from harness.runtime.answers import Arguments, ModelArrays, ModelValues, Snapshot
from harness.runtime.precision import host_dtype
from harness.runtime.session import Session
from harness.training.remote import TrainRemote
from harness.training.service import SUMMED

# The command to run next if a backend is wrong.


def diagnosis_hint(
    spec: str, backend: str, device: str, folders: Iterable[Path], sizes: Mapping[str, int]
) -> str:
    """Return a sentence with a ``harness check`` command, to run after a training was wrong. The
    command compares the model on the backend with the oracle, and shows details."""
    words = ["harness", "check", spec, "--backend", backend, "--path", "all"]
    words += ["--device", device] if device != "cpu" else []
    words += [word for folder in folders for word in ("--specs", str(folder))]
    words += [word for name, size in sizes.items() for word in ("--size", f"{name}={size}")]
    return f"for details, run {command_line(words)}"


# STEPS: the number of steps that the oracle repeats. PATIENCE: the share of --timeout that it may
# take.
STEPS, PATIENCE = 3, 0.1
# The seconds that the steps in few calls, or one by one, may take. Slow steps are fewer.
SECONDS = 1.0
HELD_OUT = "held-out loss"
NOT_COMPARED = (
    "not compared with the oracle: in {} every result is only rounding error, or not finite"
)


class Disproved(HarnessError):
    """Error: the first steps of a training do not agree with the oracle."""


def prove(remote: TrainRemote) -> dict[str, Any]:
    """Check the first steps of a training in a worker. The check changes the worker's parameters,
    so the caller must load them again.

    Return a dictionary:

    - ``steps``: the number of steps that the oracle repeated. If it is 0, ``why`` has the reason.
    - ``in_a_row``: the number of steps that the worker made twice, once all in one call, and once
      with one call per step.
    - ``worst``, ``error``, ``allowed``: the tensor with the largest error, its error and tolerance.
    - ``seconds``: the duration of the check.

    Raises:
        Disproved: a step is wrong.
        UsageError: the oracle's own results are NaN or infinite.
        TrainingError: the worker fails.
    """
    proof, began = _Proof(remote), time.perf_counter()
    record: dict[str, Any] = {}
    deviations: list[Deviation] = []
    try:
        with with_time_limit(TimeLimit(PATIENCE * proof.setup.request.timeout)), within_limits():
            deviations += proof.compare_with_oracle()
            deviations += proof.compare_held_out()
        record["steps"] = proof.few
        if all(deviation.void for deviation in deviations):
            record |= {"steps": 0, "why": NOT_COMPARED.format(proof.dtype)}
    except OracleFault as fault:
        record |= {"steps": 0, "why": f"{fault}; --no-proof trains without the oracle"}
    proof.many = proof.affordable_steps()
    deviations += proof.compare_few_calls()
    record["in_a_row"] = proof.many
    worst = furthest(deviations)
    record |= {"worst": worst.name, "error": worst.error, "allowed": worst.tolerance}
    record["seconds"] = time.perf_counter() - began
    if not worst.agrees:
        request = remote.setup.request
        check_arguments = (
            request.spec,
            request.backend,
            request.device,
            request.folders,
            request.sizes,
        )
        raise Disproved(
            f"the first steps on {request.backend} are wrong, so nothing was trained: {worst}; "
            f"--no-proof trains anyway; {diagnosis_hint(*check_arguments)}"
        )
    return record


class _Proof:
    def __init__(self, remote: TrainRemote) -> None:
        self.remote, self.setup = remote, remote.setup
        setup, seed = self.setup, self.setup.request.seed
        self.rate, self.batches = setup.rates[0], setup.feed.epoch(0)
        self.few, self.many = min(STEPS, len(self.batches)), min(SUMMED, len(self.batches))
        self.parameters = initial_parameters(setup.training, seed)
        self.statistics = initial_statistics(setup.training)
        self.dtype = setup.request.dtype
        # The learning rate and the batch number of each step that the oracle repeats.
        self.shown = [(self.rate, number) for number in range(self.few)]
        last = len(self.batches) - 1
        if len(self.batches[last]) != len(self.batches[0]):
            self.shown.append((self.rate, last))
        others = [rate for rate in setup.rates if rate != self.rate]
        self.shown += [(rate, min(self.few, last)) for rate in others[:1]]

    def compare_with_oracle(self) -> list[Deviation]:
        setup = self.setup
        reference = Reference(setup.training, setup.inference, setup.spec.update, orders=FEW)
        expected = reference.expect(lambda session: [self._oracle_values(session)])
        bad_name = next((n for n, a in expected.values.items() if not np.isfinite(a).all()), None)
        if bad_name is not None:
            what = bad_name.rpartition(": ")[2].removesuffix(" moved")
            raise UsageError(
                f"in the oracle itself, {what} is NaN or infinite after {len(self.shown)} steps at "
                f"a learning rate of {self.rate:g}, so nothing was trained: check the optimizer's "
                "equations and the learning rate"
            )
        expected = with_parameter_rounding(expected, self.parameters)
        actual = self._train_values(self.parameters, [(*step, 1) for step in self.shown])
        deviations = expected.deviations(actual, self.dtype)
        # Rounding errors grow over the steps and may flip a relu, so compare each step separately.
        return (
            deviations if all(d.agrees for d in deviations) else self._compare_each_step(reference)
        )

    def _compare_each_step(self, reference: Reference) -> list[Deviation]:
        """Compare each step separately with the oracle. The oracle starts each step from the values
        that the worker had before this step, so errors of earlier steps do not add up."""
        deviations: list[Deviation] = []
        self.remote.calls.load(self.parameters, self.statistics)
        before = self.remote.calls.snapshot()
        for number, (rate, batch) in enumerate(self.shown):
            total = sum(self.remote.calls.run(rate, 0, batch, 1))
            after = self.remote.calls.snapshot()
            step = partial(self._oracle_step, number=number, before=before)
            expected = with_parameter_rounding(reference.expect(step), before["parameters"])
            actual = self._values(number + 1, total, after, before["parameters"])
            actual |= _states(number + 1, after["state"])
            deviations += expected.deviations(actual, self.dtype)
            before = after
        return deviations

    def compare_held_out(self) -> list[Deviation]:
        setup = self.setup
        if not setup.feed.held_out_batch:
            return []
        self.remote.calls.load(self.parameters, self.statistics)
        metrics = self.remote.calls.evaluate(most=1) or {}
        loss = np.asarray(metrics.get("loss"), host_dtype(self.dtype))
        reference = Reference(setup.training, setup.inference, orders=FEW)
        expected = reference.expect(lambda session: [self._held_out_loss(session)])
        return expected.deviations({HELD_OUT: loss}, self.dtype)

    def affordable_steps(self) -> int:
        """Return how many steps the worker can make in about :data:`SECONDS`, at least the number
        that the oracle repeats. The time of one step is measured."""
        self._train_values(self.parameters, self._calls(1))
        began = time.perf_counter()
        self.remote.calls.run(self.rate, 0, 1 % len(self.batches), 1)
        most = int(SECONDS / (time.perf_counter() - began))
        return min(self.many, max(most, self.few))

    def compare_few_calls(self) -> list[Deviation]:
        """Make the same steps twice in the worker, once all in one call, and once with one call per
        step; return the deviations of the results."""
        row = self._train_values(self.parameters, [(self.rate, 0, self.many)])
        single = self._train_values(self.parameters, self._calls(self.many))
        start = perturbed(self.parameters, self.dtype, np.random.default_rng(0))
        # Measure the rounding error: make the same steps from parameters with other last digits.
        noise = noise_between(single, self._train_values(start, self._calls(self.many)))
        least = FLOOR * PRECISION[self.dtype] * self.many
        noise = {n: max(e, least) for n, e in noise.items()}
        expected = Expected.within(single, noise, self.dtype)
        return expected.deviations(row, self.dtype)

    def _calls(self, count: int) -> list[tuple[float, int, int]]:
        return [(self.rate, number, 1) for number in range(count)]

    def _train_values(
        self, parameters: ArrayDict, calls: list[tuple[float, int, int]]
    ) -> ArrayDict:
        """Make steps in the worker, starting with ``parameters``; return the parameters, slots and
        sum of losses afterwards.

        Each entry of ``calls`` is a tuple: learning rate, number of the first step, number of
        steps.
        """
        self.remote.calls.load(parameters, self.statistics)
        total = 0.0
        for rate, first, count in calls:
            total += sum(self.remote.calls.run(rate, 0, first, count))
        done = sum(count for *_, count in calls)
        return self._values(done, total, self.remote.calls.snapshot(), parameters)

    def _oracle_values(self, session: Session) -> ArrayDict:
        total = 0.0
        session.load(self.parameters, self.statistics)
        state = initial_state(session.programs["training"], len(self.batches[0]))
        for number in range(len(self.shown)):
            loss, state = self._step(session, number, state)
            total += loss
        return self._values(len(self.shown), total, session.read(), self.parameters)

    def _oracle_step(self, session: Session, number: int, before: Snapshot) -> list[ArrayDict]:
        session.load(before["parameters"], before["statistics"])
        scaling = before["scaling"]
        session.load_slots(before["slots"], int(scaling[UPDATES]) if scaling else before["steps"])
        loss, state = self._step(session, number, before["state"])
        values = self._values(number + 1, loss, session.read(), before["parameters"])
        return [values | _states(number + 1, state)]

    def _step(
        self, session: Session, number: int, state: Mapping[str, Array]
    ) -> tuple[float, ArrayDict]:
        """Make one step in a session; return the sum of its losses over the batch, and the next
        state. ``number`` is an index into ``shown``, the steps that the oracle repeats."""
        rate, batch = self.shown[number]
        rows = self.batches[batch]
        arrays = self.setup.feed.batch(rows, step=number)
        inputs, targets = group_of(arrays, "input."), group_of(arrays, "target.")
        results = session.step(inputs, state, targets, rate)
        return float(results["loss"]) * len(rows), state_of(results)

    def _held_out_loss(self, session: Session) -> ArrayDict:
        feed = self.setup.feed
        session.load(self.parameters, self.statistics)
        arrays = feed.batch(next(iter(feed.held_out())))
        inputs, targets = group_of(arrays, "input."), group_of(arrays, "target.")
        state = initial_state(session.programs["inference"], feed.held_out_batch)
        return {HELD_OUT: session.forward("inference", inputs, state, targets)["loss"]}

    def _values(
        self, steps: int, total: float, snapshot: ModelValues | ModelArrays, start: ArrayDict
    ) -> ArrayDict:
        arguments = Arguments(start, self.statistics, {}, {}, {})
        values = step_values(steps, {"results": {}, **snapshot}, arguments)
        return {**values, "sum of losses": np.asarray(total, host_dtype(self.dtype))}


def _states(step: int, state: Mapping[str, Array]) -> ArrayDict:
    return {f"step {step}: state.{n}": array for n, array in state.items()}
