"""The data on which a model is timed (parameters, batches), and the results that the oracle
expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from random import SystemRandom
from typing import Any

import numpy as np

from harness.arrays import Array, Arrays
from harness.language.model import fingerprint
from harness.oracle.case import state_of, step_values, with_parameter_rounding
from harness.oracle.draw import data, draw, target
from harness.oracle.tolerance import Deviation
from harness.oracle.yardstick import FEW, OTHERS, Expected, Reference
from harness.program.flops import count
from harness.program.ir import Program
from harness.program.plan import forward_plan, training_plan
from harness.program.serial import digest, encoded
from harness.program.signature import result_ports
from harness.runtime.session import Session
from harness.runtime.updates import STEP
from harness.timing.request import Group, characters_read

Batch = dict[str, dict[str, Array]]
# Values after some steps: parameters, statistics, slots, and ``others`` (e.g. the state).
StepValues = Mapping[str, Any]

# The number of batches that the steps cycle through.
ROTATING = 8
# Random numbers that no worker can predict.
SECRET = SystemRandom()
# The indices of the steps whose results are compared. The first batch is used twice: in training
# its second result differs, so a cached result is detected. For a large batch, or for a step with
# many operations, the oracle is slow, so two steps and fewer orders of summation must suffice.
COMPARED = (0, ROTATING, 1)
LARGE = 256
MANY_OPERATIONS = 10**10


class TimedCase:
    """The data on which a group (a model with its sizes and mode) is timed: parameters, batches and
    expected results. ``seed`` determines the random numbers."""

    def __init__(self, group: Group, dtype: str, seed: int) -> None:
        spec, self.group, self.dtype, self.seed = group.spec, group, dtype, seed
        self.programs: Mapping[str, Program] = {
            "train": spec.program("training", **group.sizes),
            "forward": spec.program("inference", **group.sizes),
        }
        self.rule = spec.update
        self.sizes = {"batch": group.batch, "time": group.time}
        self.material = draw(self.programs["train"], group.batch, group.time, seed)
        self.batches = self.make_batches(0)
        per_sample, self.unit = characters_read(spec, group.time)
        self.read = group.batch * per_sample

    @cached_property
    def model(self) -> str:
        """A checksum of the spec and of all sizes, to detect in later comparisons that the model
        has changed."""
        return digest([fingerprint(self.group.spec), sorted(self.program.sizes.items())])

    @property
    def compared(self) -> tuple[int, ...]:
        """The indices of the steps whose results are compared with the oracle."""
        return COMPARED[:2] if self._slow_oracle else COMPARED

    @property
    def _slow_oracle(self) -> bool:
        return self.group.batch > LARGE or self.products > MANY_OPERATIONS

    @property
    def program(self) -> Program:
        """The program that is timed: for training or for a forward pass."""
        return self.programs[self.group.mode]

    @cached_property
    def products(self) -> int:
        """The minimum number of floating-point operations in the matmuls of a step, over all plans
        (ways to run the step)."""
        program, sizes = self.program, {**self.program.sizes, **self.sizes}
        if self.group.mode == "forward":
            plans = [forward_plan(program, sizes, self.dtype, (), moved=m) for m in (True, False)]
        else:
            assert self.rule is not None
            rate = self.learning_rate
            plans = [training_plan(program, self.rule, sizes, self.dtype, (), learning_rate=rate)]
        return min(count(plan.nodes, plan.types, plan.sizes).products for plan in plans)

    @cached_property
    def learning_rate(self) -> float:
        """The learning rate of the first phase of the spec's training. If the spec has no training,
        it is the learning rate of the optimizer.

        Losses are sums over the batch, so gradients grow with the batch size, and the parameters
        could diverge. If the batch is larger than the spec's batch, the rate is therefore reduced
        in proportion. This is done only for optimizers without slots, such as SGD.
        """
        training = self.group.spec.model.training
        if self.rule is None:
            return 0.0
        if training is None:
            return self.rule.attributes["learning_rate"]
        rate = float(training.phases[0].learning_rate)
        return rate if self.rule.every_slot else rate * min(1.0, training.batch / self.group.batch)

    def make_batches(self, number: int) -> list[Batch]:
        """Return :data:`ROTATING` random batches. ``number`` is part of the seed: another number
        gives other batches."""
        program, sizes = self.programs["train"], self.sizes
        seeds = range(number * ROTATING, (number + 1) * ROTATING)
        return [
            {
                "inputs": {p.name: data(program, p, sizes, self._mixed(s)) for p in program.inputs},
                "targets": {
                    p.name: target(program, p, sizes, self._mixed(s)) for p in program.targets
                },
            }
            for s in seeds
        ]

    def make_unseen_batches(self) -> list[Batch]:
        """Return random batches that no worker has seen before, and that no worker can predict."""
        return self.make_batches(1 + SECRET.getrandbits(32))

    def payload(self, path: str, device: str) -> dict[str, Any]:
        """Return a dictionary with the arguments of the worker's method ``prepare``, which prepares
        the steps on ``path``."""
        return {
            "training": encoded(self.programs["train"]),
            "inference": encoded(self.programs["forward"]),
            "rule": encoded(self.rule),
            "path": path,
            "dtype": self.dtype,
            "device": device,
            "mode": self.group.mode,
            "parameters": self.material.parameters,
            "statistics": self.material.statistics,
            "state": self.material.state,
            "batches": self.batches,
            "learning_rate": self.learning_rate,
        }

    @cached_property
    def _reference(self) -> Reference:
        programs = (self.programs["train"], self.programs["forward"])
        orders = FEW if self._slow_oracle else OTHERS
        return Reference(*programs, self.rule, orders=orders, kind=kind)

    @cached_property
    def expected(self) -> Expected:
        """The results that the oracle expects for the compared steps, with the rounding error of
        the dtype."""
        expected = self._reference.expect(lambda session: [self.run(session)])
        return with_parameter_rounding(expected, self.material.parameters)

    def is_not_comparable(self) -> bool:
        """Return whether the expected results cannot be compared: a loss of the oracle, or every
        entry of its outputs, is infinite or NaN."""
        values = self.expected.values
        losses = [a for n, a in values.items() if n.endswith(": loss")]
        if losses:
            return not all(np.isfinite(a).all() for a in losses)
        return not any(np.isfinite(a).any() for a in values.values())

    def expect_step(self, number: int, batch: Batch, left: StepValues) -> Expected:
        """Return the results that the oracle expects for step ``number`` (from 1), which starts
        from the values ``left``.

        The rounding error is measured only if a comparison needs it.
        """
        expected = self._reference.expect(lambda s: [self._follow(s, number, batch, left)])
        return with_parameter_rounding(expected, left["parameters"])

    def run(self, session: Session) -> dict[str, Array]:
        """Run the compared steps in a session; return a dictionary from name, e.g. "step 1: loss",
        to result."""
        return self._train(session) if self.group.mode == "train" else self._forward(session)

    def rename_results(
        self,
        results: Sequence[Mapping[str, Array]],
        after: StepValues,
        first: int = 1,
        start: Arrays | None = None,
    ) -> dict[str, Array]:
        """Return a dictionary of a worker's results, with the names that the expected results have,
        e.g. "step 1: loss".

        ``results`` has a dictionary per step. ``after`` has the worker's values after the last
        step, and is empty in a forward pass. ``start`` has the parameters before the first step
        (default: the initial parameters). ``first`` is the number of the first step.
        """
        values: dict[str, Array] = {}
        for number, result in enumerate(results, start=first):
            values.update({f"step {number}: {n}": np.asarray(a) for n, a in result.items()})
        if after:
            step = {"results": results[-1], **after}
            material = (
                self.material if start is None else replace(self.material, parameters=dict(start))
            )
            values.update(step_values(first + len(results) - 1, step, material))
        return values

    def compare(
        self, found: Mapping[str, Array], expected: Expected | None = None
    ) -> list[Deviation]:
        """Compare the results ``found`` with the expected results (default: :attr:`expected`), by
        name; return one deviation per tensor."""
        return (expected or self.expected).deviations(found, self.dtype)

    def _mixed(self, seed: int) -> int:
        return self.seed * 1_000_003 + seed

    def _train(self, session: Session) -> dict[str, Array]:
        material = self.material
        session.load(material.parameters, material.statistics)
        state: Mapping[str, Array] = material.state
        values: dict[str, Array] = {}
        for number, index in enumerate(self.compared, start=1):
            batch = self.batches[index % ROTATING]
            results = session.step(batch["inputs"], state, batch["targets"], self.learning_rate)
            state = state_of(results)
            values[f"step {number}: loss"] = results["loss"]
        step = {"results": results, **session.read()}
        return values | step_values(len(self.compared), step, material)

    def _follow(
        self, session: Session, number: int, batch: Batch, left: StepValues
    ) -> dict[str, Array]:
        session.load(left["parameters"], left["statistics"])
        others: Mapping[str, Array] = left["others"]
        state = state_of(others)
        if self.group.mode == "forward":
            results = session.forward("inference", batch["inputs"], state)
            return {f"step {number}: {n}": results[n] for n in self._ends}
        # In float16, steps with infinite gradients may have been skipped.
        session.load_slots(left["slots"], int(others.get(STEP, number)) - 1)
        results = session.step(batch["inputs"], state, batch["targets"], self.learning_rate)
        material = replace(self.material, parameters=dict(left["parameters"]))
        return step_values(number, {"results": results, **session.read()}, material)

    @cached_property
    def _ends(self) -> list[str]:
        ends = result_ports(self.programs["forward"], "ends")
        return [name for name in ends if name.startswith("output.")]

    def _forward(self, session: Session) -> dict[str, Array]:
        session.load(self.material.parameters, self.material.statistics)
        state: Mapping[str, Array] = self.material.state
        values = {}
        for number, index in enumerate(self.compared, start=1):
            inputs = self.batches[index % ROTATING]["inputs"]
            results = session.forward("inference", inputs, state)
            state = state_of(results)
            values.update({f"step {number}: {n}": results[n] for n in self._ends})
        return values


def kind(name: str) -> str:
    """Return "loss" or "tensor" for the name of a value, e.g. "step 1: loss". The two kinds have
    separate rounding errors, because losses are less noisy than tensors."""
    return "loss" if name.endswith(": loss") else "tensor"
