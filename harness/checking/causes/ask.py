"""The questions of a search: passes of a backend on changed programs and with other values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.arrays import Array, widened
from harness.checking.causes.backward import Backward
from harness.checking.causes.cause import MOST, Cause, Causes, label, listed
from harness.checking.causes.forward import forward_causes
from harness.checking.causes.linear import Batch, Train
from harness.checking.causes.updates import update_causes
from harness.checking.checks.context import Context
from harness.checking.checks.training import RATE, planned
from harness.checking.first_difference import Expectations
from harness.checking.reduction.failure import Failure
from harness.checking.reduction.segments import segment
from harness.checking.reproducer import Pass
from harness.errors import HarnessError
from harness.oracle.case import step_values
from harness.oracle.yardstick import Expected
from harness.program.ir import Phase, Program
from harness.program.updates import UpdateRule
from harness.results.cell import Cell
from harness.runtime.arguments import Arguments
from harness.worker.remote import Remote, Tensors, Traced, WorkerFault

ORACLE = "the oracle"


@dataclass(frozen=True)
class Asked:
    """Of one backend, against the oracle or against the session of another one, whose device is
    ``elsewhere`` where that is not the context's."""

    context: Context
    other: Remote | None
    against: str
    elsewhere: str = ""

    def forward(self, phase: Phase, material: Arguments) -> Causes | None:
        """The causes in a forward pass."""
        context, remote, loss = self.context, self.context.remote, phase == "training"
        others = None
        if self.other is not None:
            values = self._pass(self.other, phase, material)
            others = {(n, s): a for n, s, a in values if isinstance(a, np.ndarray)}
        expected = Expectations(
            context.case, material, context.dtype, phase=phase, loss=loss, others=others
        )
        self._pass(remote, phase, material)

        def trace(instead: Sequence[tuple[str, int | None, Array]]) -> Sequence[Traced]:
            return remote.trace(phase, material, loss=loss, instead=instead)

        return forward_causes(expected, trace, self.against)

    def parts(self, material: Arguments) -> Causes | None:
        """The layers and operations that give something wrong by themselves, of right inputs, as
        the backend runs them: compiled, with its own loops."""
        context = self.context
        run = Pass("outputs", "training", material)
        cell = Cell("", "", context.device, context.dtype, context.path)
        whole = Failure(cell, context.case.training, context.case.inference, run)
        found: list[Cause] = []
        for number, node in enumerate(whole.program.nodes):
            part = segment(whole, number, number + 1)
            if part is None or len(found) >= MOST:
                continue
            try:
                wrong = self._wrong(part)
            except (WorkerFault, HarnessError):
                continue
            if wrong:
                what = (
                    f"{label(node)} is given right values, and makes a wrong one of "
                    f"{listed(wrong)}; walked step by step it is right"
                )
                found.append(Cause("forward", what, tuple(wrong), node.place))
        return Causes(found, True, "all other parts are right by themselves") if found else None

    def _wrong(self, part: Failure) -> list[str]:
        context = self.context
        expected = part.expected().only("output.")
        programs = (part.training, part.inference)
        results = self._ask(context.remote)(*programs, part.run.material, everything=True)
        outputs = {n: a for n, a in results.items() if n.startswith("output.")}
        found = expected.deviations(outputs, context.dtype)
        # What is of another form is so whatever makes it.
        off = [d for d in found if not d.agrees and not d.reason]
        return [d.name.removeprefix("output.") for d in off]

    def backward(self, material: Arguments, along: Mapping[str, Array]) -> Causes | None:
        """Those in a backward pass of the loss, and of results along a direction."""
        context = self.context
        others = self._ask(self.other) if self.other else None
        ask = self._ask(context.remote)
        search = Backward(context.case, material, ask, context.dtype, self.against, along, others)
        return search.causes()

    def directions(self, material: Arguments) -> list[str]:
        """The outputs and new states along which gradients are wrong, taken one by one."""
        context, found = self.context, []
        case = context.case
        context.remote.open(case.training, case.inference, None, *self._setting(context.remote))
        context.remote.load(material)
        for name in case.cotangents:
            along = {n: a if n == name else 0 * a for n, a in case.cotangents.items()}
            expected = case.gradients(material, f"along {name}", along).only("gradient.")
            made = _gradients(context.remote.gradients(material, along))
            if not all(d.agrees for d in expected.deviations(made, context.dtype)):
                found.append(name)
        return found

    def kept(self, material: Arguments) -> Causes | None:
        """Whether a session's first gradients are right, and those of a later call are not."""
        context, case = self.context, self.context.case
        context.remote.open(case.training, case.inference, None, *self._setting(context.remote))
        context.remote.load(material)
        expected = case.gradients(material, "main").only("gradient.")
        other = material.with_batch(case.batch_of(case.batch, case.time))
        first = _gradients(context.remote.gradients(material))
        context.remote.gradients(other)
        again = _gradients(context.remote.gradients(material))
        if not all(d.agrees for d in expected.deviations(first, context.dtype)):
            return None
        off = [d.name for d in expected.deviations(again, context.dtype) if not d.agrees]
        if not off:
            return None
        what = f"{listed(off)}: right in the first call of a session, and wrong in a later one"
        proof = "something is kept from the calls before it"
        return Causes([Cause("backward", what, tuple(off))], True, proof)

    def update(self, check: str) -> Causes | None:
        """Those in the steps of a training, by the spec's own optimizer or by gradient descent."""
        context, case = self.context, self.context.case
        own = check == "training"
        rule = case.spec.update if own else case.spec.rule("sgd")
        if rule is None:
            return None
        rate = rule.attributes["learning_rate"] if own else RATE
        batches, expected = planned(case, rule, rate, context.dtype)
        if self.other is not None:
            programs = (case.training, case.inference)
            steps = self._train(self.other)(*programs, rule, case.material, batches)
            values: dict[str, Any] = {}
            for number, step in enumerate(steps, start=1):
                values |= step_values(number, step, case.material)
            noise = {n: 2 * e for n, e in expected.noise(context.dtype).items()}
            wide = {n: widened(a) for n, a in values.items()}
            expected = Expected.within(wide, noise, context.dtype)
        train = self._train(context.remote)
        return update_causes(case, rule, batches, expected, train, context.dtype)

    def _setting(self, remote: Remote) -> tuple[str, str, str]:
        context = self.context
        device = self.elsewhere if self.elsewhere and remote is self.other else context.device
        return context.path, context.dtype, device

    def _pass(self, remote: Remote, phase: Phase, material: Arguments) -> Sequence[Traced]:
        """The case's own program opened and loaded, and its trace."""
        case = self.context.case
        remote.open(case.training, case.inference, None, *self._setting(remote))
        remote.load(material)
        return remote.trace(phase, material, loss=phase == "training")

    def _ask(self, remote: Remote) -> Callable[..., Tensors]:
        def asked(
            training: Program, inference: Program, batch: Arguments, everything: bool = False
        ) -> Tensors:
            remote.open(training, inference, None, *self._setting(remote))
            remote.load(batch)
            found = remote.gradients(batch)
            return found if everything else _gradients(found)

        return asked

    def _train(self, remote: Remote) -> Train:
        def trained(
            training: Program,
            inference: Program,
            rule: UpdateRule,
            material: Arguments,
            batches: Sequence[Batch],
        ) -> list[dict[str, Any]]:
            remote.open(training, inference, rule, *self._setting(remote))
            remote.load(material)
            return remote.train(batches, material.state)

        return trained


def _gradients(found: Tensors) -> Tensors:
    return {n: a for n, a in found.items() if n.startswith("gradient.")}
