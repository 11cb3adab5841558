"""The causes of what a cell's checks saw, phase by phase, in the order in which phases run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.check.causes.backward import Backward
from harness.check.causes.cause import Cause, Causes, listed
from harness.check.causes.forward import forward_causes
from harness.check.causes.updates import Batch, update_causes
from harness.check.checks.context import Context
from harness.check.checks.training import RATE, planned
from harness.check.findings import Finding
from harness.check.localise import BACKWARD, FORWARD, Expectations
from harness.oracle.case import step_values
from harness.oracle.yardstick import Expected
from harness.program.ir import Phase, Program, UpdateRule
from harness.runtime.arguments import Arguments
from harness.worker.remote import Remote, Tensors, Traced, WorkerFault

PRIMITIVES = "primitives"
INFERENCE = ("inference", "carried-state")
TRAINING = ("training", "training-sgd")
ORACLE = "the oracle"


@dataclass(frozen=True)
class Finder:
    """One search. ``other`` is the session of another backend, in the oracle's place."""

    context: Context
    other: Remote | None = None
    against: str = ORACLE

    def of(self, findings: Sequence[Finding]) -> Causes:
        """The causes of what differs among findings.

        Raises:
            WorkerFault: the backend crashed, hung or raised an error in the plain pass.
        """
        wrong = {f.check: f for f in findings if f.verdict == "differ"}
        if PRIMITIVES in wrong:
            return self._primitive(wrong[PRIMITIVES])
        found = self.forward("training")
        if found is None and any(check in wrong for check in INFERENCE):
            found = self.forward("inference")
        if found is None and any(check in wrong for check in FORWARD):
            found = _results([wrong[check] for check in FORWARD if check in wrong])
        if found is None and any(check in wrong for check in INFERENCE):
            found = _results([wrong[check] for check in INFERENCE if check in wrong])
        if found is None and any(check in wrong for check in BACKWARD):
            found = self._guarded_backward([wrong[c] for c in BACKWARD if c in wrong])
        for check in TRAINING if found is None else ():
            if check in wrong and found is None:
                found = self.update(check) or _kept(wrong[check])
        return found or _property(wrong)

    def between(self) -> Causes | None:
        """The causes of what differs between two backends; None if nothing does.

        Raises:
            WorkerFault: one of them crashed, hung or raised an error.
        """
        found = self.forward("training") or self.forward("inference")
        return found or self.backward({}) or self.update(TRAINING[1])

    def forward(self, phase: Phase) -> Causes | None:
        """Those in a forward pass."""
        material = self.context.case.material
        loss = phase == "training"
        others = None
        if self.other is not None:
            values = _pass(self.context, self.other, phase)
            others = {(n, s): a for n, s, a in values if isinstance(a, np.ndarray)}
        expected = Expectations(
            self.context.case,
            material,
            self.context.dtype,
            phase=phase,
            loss=loss,
            others=others,
        )
        _pass(self.context, self.context.remote, phase)

        def trace(instead: Sequence[tuple[str, int | None, Array]]) -> Sequence[Traced]:
            remote = self.context.remote
            try:
                return remote.trace(phase, material, loss=loss, instead=instead)
            except WorkerFault:
                if not loss:
                    raise
                return remote.trace(phase, material, instead=instead)

        return forward_causes(expected, trace, self.against)

    def backward(self, along: Mapping[str, Array]) -> Causes | None:
        """Those in a backward pass of the loss, and of results along a direction."""
        context = self.context

        def ask(remote: Remote) -> Any:
            def asked(training: Program, inference: Program, batch: Arguments) -> Tensors:
                remote.open(training, inference, None, *_setting(context))
                remote.load(batch)
                found = remote.gradients(batch)
                return {n: a for n, a in found.items() if n.startswith("gradient.")}

            return asked

        others = ask(self.other) if self.other else None
        search = Backward(
            context.case, ask(context.remote), context.dtype, self.against, along, others
        )
        return search.causes()

    def _guarded_backward(self, wrong: Sequence[Finding]) -> Causes:
        """As above; what no session takes a changed program for is told by its names."""
        along: Mapping[str, Array] = {}
        if all(finding.check != BACKWARD[0] for finding in wrong):
            along = self.context.case.cotangents
        names = [d.name for finding in wrong for d in finding.deviations if not d.agrees]
        try:
            found = self.backward(along)
        except WorkerFault as fault:
            what = f"wrong gradients: {listed(names)}"
            proof = f"no gradients on the way could be had: {fault}"
            return Causes([Cause("backward", what, tuple(names))], False, proof)
        if found is not None:
            return found
        what = f"what is returned as {listed(names)} is wrong, while gradients on the way are right"
        return Causes([Cause("backward", what, tuple(names))], False, "")

    def update(self, check: str) -> Causes | None:
        """Those in the steps of a training, by the spec's own optimizer or by gradient descent."""
        context, case = self.context, self.context.case
        rule = case.spec.update if check == TRAINING[0] else case.spec.rule("sgd")
        if rule is None:
            return None
        rate = rule.attributes["learning_rate"] if check == TRAINING[0] else RATE
        batches, expected = planned(case, rule, rate, context.dtype)

        def train(remote: Remote) -> Any:
            def trained(
                training: Program,
                inference: Program,
                rule: UpdateRule,
                material: Arguments,
                batches: Sequence[Batch],
            ) -> list[dict[str, Any]]:
                remote.open(training, inference, rule, *_setting(context))
                remote.load(material)
                return remote.train(batches, material.state)

            return trained

        if self.other is not None:
            steps = train(self.other)(case.training, case.inference, rule, case.material, batches)
            values: dict[str, Any] = {}
            for number, step in enumerate(steps, start=1):
                values |= step_values(number, step, case.material)
            noise = {n: 2 * e for n, e in expected.noise(context.dtype).items()}
            wide = {n: np.asarray(a, np.float64) for n, a in values.items()}
            expected = Expected.within(wide, noise, context.dtype)
        return update_causes(case, rule, batches, expected, train(context.remote), context.dtype)

    def _primitive(self, finding: Finding) -> Causes:
        """A primitive that is wrong by itself, and where it is first seen."""
        cause = Cause("primitive", f"{finding.faults[0]}")
        try:
            forward = self.forward("training")
        except WorkerFault:
            forward = None
        if forward is None:
            return Causes([cause], False, "")
        return Causes([cause, *forward.found], forward.proved, forward.proof)


def _setting(context: Context) -> tuple[str, str, str]:
    return context.path, context.dtype, context.device


def _pass(context: Context, remote: Remote, phase: Phase) -> Sequence[Traced]:
    """The case's own program opened and loaded, and its trace."""
    case = context.case
    remote.open(case.training, case.inference, None, *_setting(context))
    remote.load(case.material)
    try:
        return remote.trace(phase, case.material, loss=phase == "training")
    except WorkerFault:
        return remote.trace(phase, case.material)


def _results(findings: Sequence[Finding]) -> Causes | None:
    """Results that are wrong though every value that they are made of is right."""
    names = [d.name for finding in findings for d in finding.deviations if not d.agrees]
    if not names:
        return None
    what = f"{listed(names)} is wrong on the way out: every value on the way agrees"
    return Causes([Cause("result", what, tuple(names))], False, "")


def _kept(finding: Finding) -> Causes:
    """Steps that are right by themselves, and differ in a session that has done other things."""
    names = [d.name for d in finding.deviations if not d.agrees]
    what = f"{listed(names) or finding.detail}: right in a session of its own, so that something "
    what += "is kept from other calls"
    return Causes([Cause("update", what, tuple(names))], False, "")


def _property(wrong: Mapping[str, Finding]) -> Causes:
    """What is seen on other values and in other calls only."""
    first = next(iter(wrong.values()))
    what = f"ordinary values are right; what differs is in {', '.join(wrong)}: {first.detail}"
    return Causes([Cause("property", what, tuple(wrong))], False, "")
