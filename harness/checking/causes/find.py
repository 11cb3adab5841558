"""The causes of what a cell's checks saw, phase by phase, in the order in which phases run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.arrays import Array, widened
from harness.checking.causes.backward import Backward
from harness.checking.causes.cause import MOST, Cause, Causes, label, listed
from harness.checking.causes.updates import Batch, Train, update_causes
from harness.checking.checks.context import Context
from harness.checking.checks.far_values import offset_material, tail_material
from harness.checking.checks.thresholds import LARGE as LARGE_SIZES
from harness.checking.checks.thresholds import large_case
from harness.checking.checks.training import RATE, planned
from harness.checking.first_difference import BACKWARD, FORWARD, Expectations, Location
from harness.checking.reduction.failure import Failure, segment
from harness.checking.reproducer import MATERIALS, Pass
from harness.errors import HarnessError
from harness.oracle.case import Case, step_values
from harness.oracle.yardstick import Expected
from harness.program.ir import Phase, Program
from harness.program.updates import UpdateRule
from harness.results.cell import Cell
from harness.results.findings import Finding
from harness.runtime.answers import Arguments
from harness.worker.remote import Remote, Tensors, Traced, WorkerFault

# The questions of a search: passes of a backend on changed programs and with other values.

# Causes in a forward pass: the right value is fed in where one is first wrong.

# Runs the pass with values in the place of others: name, time step, array.
Trace = Callable[[Sequence[tuple[str, int | None, Array]]], Sequence[Traced]]


def forward_causes(expected: Expectations, trace: Trace, reference: str) -> Causes | None:
    """The values that are wrong though all before them are right; None if every one agrees.

    A value is put right in every time step; what is then the first wrong one is a cause of its own.
    """
    wrong = expected.wrong(trace(()))
    if not wrong:
        return None
    found: list[Cause] = []
    right: set[str] = set()
    while wrong and len(found) < MOST:
        part, allowed = wrong[0]
        cause = _cause(expected.located(part, allowed))
        # An equation that is wrong in a second layer is put right in all of them.
        again = cause.place and any(cause.place == other.place for other in found)
        found.append(cause)
        right |= expected.names_at(cause.place) if again else {part.name}
        instead = [
            (name, step, array)
            for (name, step), array in expected.values.items()
            if name in right and array.dtype.kind == "f"
        ]
        wrong = [(p, limit) for p, limit in expected.wrong(trace(instead)) if p.name not in right]
    return Causes(found, not wrong, _proof(len(found), [part.name for part, _ in wrong], reference))


def _proof(count: int, wrong: Sequence[str], reference: str) -> str:
    it = "it is the cause" if count == 1 else "these are the causes"
    its = "its place" if count == 1 else "their places"
    if not wrong:
        return f"with the values of {reference} in {its} everything else agrees: {it}"
    return f"with the values of {reference} in {its} {wrong[0]} still differs"


def _cause(location: Location) -> Cause:
    layer, _, name = location.value.rpartition("/")
    what = f"{name} of layer {layer}" if layer else location.value
    if location.step is not None:
        what += f", time step {location.step},"
    what += f" is the first wrong value{f': {location.reason}' if location.reason else ''}"
    error = None if location.reason else location.error
    return Cause("forward", what, (location.value,), location.place, error, location.hint)


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


PRIMITIVES = "primitives"
INFERENCE = ("inference", "carried-state")
TRAINING = ("training", "training-sgd")
# What is another each time is no trace of earlier calls.
REPEATED = "repeatability"
# Checks at other numbers than a case's own, each with these numbers.
ELSEWHERE: Mapping[str, Callable[[Case], Arguments | None]] = {
    **{c: m for c, m in MATERIALS.items() if c not in (*FORWARD, *BACKWARD, *INFERENCE)},
    "tails": tail_material,
    "offset": offset_material,
}
LARGE = "large-sizes"
# So many further batches of a training are looked at.
BATCHES = 3


@dataclass(frozen=True)
class Finder:
    """One search. ``other`` is the session of another backend, in the oracle's place; its device is
    ``elsewhere`` where that is not the context's."""

    context: Context
    other: Remote | None = None
    against: str = ORACLE
    elsewhere: str = ""

    @property
    def asked(self) -> Asked:
        """The questions that a search asks."""
        return Asked(self.context, self.other, self.against, self.elsewhere)

    def of(self, findings: Sequence[Finding]) -> Causes:
        """The causes of what differs among findings.

        Raises:
            WorkerFault: the backend crashed, hung or raised an error in the plain pass.
        """
        wrong = {f.check: f for f in findings if f.verdict == "differ"}
        if PRIMITIVES in wrong:
            return self._primitive(wrong[PRIMITIVES])
        return self._ordinary(wrong) or self._elsewhere(wrong) or _property(wrong)

    def between(self) -> Causes | None:
        """The causes of what differs between two backends; None if nothing does.

        Raises:
            WorkerFault: one of them crashed, hung or raised an error.
        """
        material, asked = self.context.case.material, self.asked
        found = asked.forward("training", material) or asked.forward("inference", material)
        return found or asked.backward(material, {}) or asked.update(TRAINING[1])

    def _ordinary(self, wrong: Mapping[str, Finding]) -> Causes | None:
        """Those at the case's own numbers: forward, backward, update."""
        material, asked = self.context.case.material, self.asked
        found = asked.forward("training", material)
        if found is None and any(check in wrong for check in INFERENCE):
            found = asked.forward("inference", material)
        results = _of(wrong, (*FORWARD, INFERENCE[0]))
        if found is None and results:
            found = asked.parts(material) or _results(results)
        gradients = _of(wrong, BACKWARD)
        if found is None and gradients:
            found = self._backward(material, gradients, BACKWARD[0] in wrong)
        for check in TRAINING:
            if found is None and check in wrong:
                found = self._training(check)
        if found is None and REPEATED not in wrong:
            found = next((_kept(wrong[check]) for check in TRAINING if check in wrong), None)
        return found

    def _backward(
        self, material: Arguments, wrong: Sequence[Finding], of_loss: bool
    ) -> Causes | None:
        """Those of gradients; what no session takes a changed program for is told by its names."""
        case, asked = self.context.case, self.asked
        names = [d.name for finding in wrong for d in finding.deviations if not d.agrees]
        try:
            found = asked.backward(material, {} if of_loss else case.cotangents)
        except WorkerFault as fault:
            what = f"wrong gradients: {listed(names)}"
            proof = f"no gradients on the way could be had: {fault}"
            return Causes([Cause("backward", what, tuple(names))], False, proof)
        found = found or asked.kept(material)
        if found is not None:
            return found
        if not of_loss and (directions := asked.directions(material)):
            what = f"gradients along {listed(directions)} are wrong, those along all else are right"
            return Causes([Cause("backward", what, tuple(directions))], False, "")
        return _returned(names)

    def _training(self, check: str) -> Causes | None:
        """Those of training steps: other values than the first batch's, calls that leave something
        behind, or the update."""
        case, asked = self.context.case, self.asked
        for number in range(1, BATCHES + 1):
            other = case.material.with_batch(case.batch_of(case.batch, case.time, number))
            if found := self._at(other, f"batch {number + 1} of the training"):
                return found
        return asked.kept(case.material) or asked.update(check)

    def _elsewhere(self, wrong: Mapping[str, Finding]) -> Causes | None:
        """Those at the numbers of other checks."""
        for check in wrong:
            if check == LARGE:
                found = next(filter(None, map(self._large, LARGE_SIZES)), None)
            elif check in ELSEWHERE:
                material = ELSEWHERE[check](self.context.case)
                found = self._at(material, check) if material else None
            else:
                found = None
            if found is not None:
                return found
        return None

    def _large(self, phase: Phase) -> Causes | None:
        case = large_case(self.context.case, self.context.own, phase)
        finder = replace(self, context=replace(self.context, case=case))
        return finder._at(case.material, LARGE)

    def _at(self, material: Arguments, where: str) -> Causes | None:
        """Those at other numbers, which are named."""
        asked = self.asked
        try:
            found = asked.forward("training", material) or asked.parts(material)
            found = found or asked.backward(material, {})
        except WorkerFault:
            return None
        if found is None:
            return None
        causes = [
            replace(cause, what=f"at the numbers of {where}: {cause.what}") for cause in found.found
        ]
        return replace(found, found=causes)

    def _primitive(self, finding: Finding) -> Causes:
        """A primitive that is wrong by itself, and where it is first seen."""
        cause = Cause("primitive", finding.faults[0])
        try:
            forward = self.asked.forward("training", self.context.case.material)
        except WorkerFault:
            forward = None
        if forward is None:
            return Causes([cause], False, "")
        return Causes([cause, *forward.found], forward.proved, forward.proof)


def _of(wrong: Mapping[str, Finding], checks: Sequence[str]) -> list[Finding]:
    return [wrong[check] for check in checks if check in wrong]


def _off(findings: Sequence[Finding]) -> Iterator[str]:
    return (d.name for finding in findings for d in finding.deviations if not d.agrees)


def _results(findings: Sequence[Finding]) -> Causes | None:
    """Results that are wrong though every value that they are made of is right."""
    names = list(_off(findings))
    if not names:
        return None
    what = f"{listed(names)}: wrong on the way out, while every value on the way agrees"
    return Causes([Cause("result", what, tuple(names))], False, "")


def _returned(names: Sequence[str]) -> Causes:
    what = f"{listed(names)}: wrong as they are returned, while gradients on the way are right"
    return Causes([Cause("backward", what, tuple(names))], False, "")


def _kept(finding: Finding) -> Causes:
    """Steps that are right by themselves, and differ in a session that has done other things."""
    names = list(_off([finding]))
    what = f"{listed(names) or finding.detail}: right in a session of its own, so that something "
    what += "is kept from other calls"
    return Causes([Cause("update", what, tuple(names))], False, "")


def _property(wrong: Mapping[str, Finding]) -> Causes:
    """What is seen on other values and in other calls only."""
    first = next(iter(wrong.values()))
    names = (*wrong, *_off([first]))
    what = f"ordinary values are right; what differs is in {', '.join(wrong)}: {first.detail}"
    return Causes([Cause("property", what, names)], False, "")
