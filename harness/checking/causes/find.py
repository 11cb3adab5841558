"""The causes of what a cell's checks saw, phase by phase, in the order in which phases run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.checking.causes.ask import ORACLE, Asked
from harness.checking.causes.cause import Cause, Causes, listed
from harness.checking.checks.context import Context
from harness.checking.checks.far_values import offset_material, tail_material
from harness.checking.checks.large_cases import LARGE as LARGE_SIZES
from harness.checking.checks.large_cases import large_case
from harness.checking.first_difference import BACKWARD, FORWARD
from harness.checking.reproducer import MATERIALS
from harness.oracle.case import Case
from harness.program.ir import Phase
from harness.results.findings import Finding
from harness.runtime.arguments import Arguments
from harness.worker.remote import Remote, WorkerFault

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
