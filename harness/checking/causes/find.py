"""Search for the causes of a cell's differences. The search tests the forward pass first, then
gradients, then optimizer updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from harness.arrays import Array, widen
from harness.checking.causes.backward import BackwardSearch
from harness.checking.causes.cause import (
    MAX_CAUSES,
    ORACLE,
    Cause,
    Causes,
    describe_node,
    replaced_causes,
)
from harness.checking.causes.updates import step_arrays, update_causes
from harness.checking.checks.context import Batches, Context, Step, select_prefixes
from harness.checking.checks.extremes import offset_material, tail_material
from harness.checking.checks.thresholds import LARGE as LARGE_SIZES
from harness.checking.checks.thresholds import large_case
from harness.checking.checks.training import RATE, plan_steps
from harness.checking.checks.values import PRIMITIVES
from harness.checking.first_difference import BACKWARD, FORWARD, Expectations, Location, join_names
from harness.checking.reduction import Segments
from harness.checking.reproducer import MATERIALS, Failure, Pass
from harness.errors import HarnessError
from harness.oracle.case import Case
from harness.oracle.yardstick import Expected
from harness.program.ir import Phase, Program
from harness.program.updates import UpdateRule
from harness.results.cell import Cell
from harness.results.findings import Finding
from harness.runtime.answers import Arguments
from harness.worker.remote import (
    Remote,
    Tensors,
    Traced,
    WorkerFault,
)

INFERENCE = ("inference", "carried-state")
TRAINING = ("training", "training-sgd")
# If this check differs, results change from call to call, so a change does not prove that the
# session keeps state from earlier calls.
REPEATABILITY = "repeatability"
# Checks that replace arguments of the case -> the function that returns the new arguments.
OTHER_ARGUMENTS: Mapping[str, Callable[[Case], Arguments | None]] = {
    **{c: m for c, m in MATERIALS.items() if c not in (*FORWARD, *BACKWARD, *INFERENCE)},
    "tails": tail_material,
    "offset": offset_material,
}
LARGE = "large-sizes"
# The search for wrong training steps tries this many further batches.
BATCHES = 3


@dataclass(frozen=True)
class Finder:
    """A search for the causes of a backend's differences from the oracle or from a second backend.
    ``other`` is the context of the second backend. ``against`` is a text that names the oracle or
    the second backend."""

    context: Context
    other: Context | None = None
    against: str = ORACLE

    def find_causes(self, findings: Sequence[Finding]) -> Causes:
        """Return the causes of those findings (results of checks) that differ.

        Raises:
            WorkerFault: the backend crashed, hung or raised an error in the pass on the usual test
                arrays.
        """
        wrong = {f.check: f for f in findings if f.verdict == "differ"}
        if PRIMITIVES in wrong:
            return self._primitive_causes(wrong[PRIMITIVES])
        causes = self._search_ordinary_pass(wrong) or self._search_other_arguments(wrong)
        if causes is not None:
            return causes
        # An ordinary pass is right. The backend differs only on special arguments or other calls.
        first = next(iter(wrong.values()))
        text = f"an ordinary pass is right; these checks differ: {', '.join(wrong)}. {first.detail}"
        return Causes.single("property", text, (*wrong, *_wrong_names(first)))

    def compare_backends(self) -> Causes | None:
        """Return the causes of the differences between two backends; None if there are none.

        Raises:
            WorkerFault: a backend crashed, hung or raised an error.
        """
        material = self.context.case.material
        causes = self._search_forward("training", material) or self._search_forward(
            "inference", material
        )
        return causes or self._search_backward(material, {}) or self._search_updates(TRAINING[1])

    def _search_ordinary_pass(self, wrong: Mapping[str, Finding]) -> Causes | None:
        material = self.context.case.material
        causes = self._search_forward("training", material)
        if causes is None and any(check in wrong for check in INFERENCE):
            causes = self._search_forward("inference", material)
        results = [wrong[check] for check in (*FORWARD, INFERENCE[0]) if check in wrong]
        if causes is None and results:
            causes = self._search_nodes(material)
            if causes is None and (names := _wrong_names(*results)):
                text = (
                    f"{join_names(names)}: wrong when returned, but every intermediate value agrees"
                )
                causes = Causes.single("result", text, names)
        gradients = [wrong[check] for check in BACKWARD if check in wrong]
        if causes is None and gradients:
            causes = self._search_gradients(
                material, _wrong_names(*gradients), BACKWARD[0] in wrong
            )
        training = [check for check in TRAINING if check in wrong]
        for check in training:
            causes = causes or self._search_training(check)
        if causes is None and training and REPEATABILITY not in wrong:
            finding = wrong[training[0]]
            # The steps are right in a new session, but wrong in a session after other calls.
            text = (
                f"{join_names(_wrong_names(finding)) or finding.detail}: right in a new session, "
            )
            text += "so the session keeps state from other calls"
            causes = Causes.single("update", text, _wrong_names(finding))
        return causes

    def _search_gradients(
        self, material: Arguments, names: list[str], of_loss: bool
    ) -> Causes | None:
        """Return the causes of wrong gradients on the test arrays ``material``; None if the search
        finds none.

        ``names`` are the wrong gradients, and ``of_loss`` says whether they are gradients of the
        loss. The search adds inputs to the program, which some backends cannot run. The returned
        cause then only lists ``names``.
        """
        case = self.context.case
        try:
            causes = self._search_backward(material, {} if of_loss else case.cotangents)
        except WorkerFault as fault:
            text = f"wrong gradients: {join_names(names)}"
            proof = f"no gradients of intermediate values could be computed: {fault}"
            return Causes.single("backward", text, names, proof)
        causes = causes or self._search_kept_state(material)
        if causes is not None:
            return causes
        if not of_loss and (directions := self._wrong_directions(material)):
            text = (
                f"gradients along {join_names(directions)} are wrong, and all other gradients right"
            )
            return Causes.single("backward", text, directions)
        text = f"{join_names(names)}: wrong when returned, but all intermediate gradients are right"
        return Causes.single("backward", text, names)

    def _search_training(self, check: str) -> Causes | None:
        """Return the causes of wrong training steps in the check named ``check``. The search tries
        three explanations in turn:

        - an operation that is wrong on a later batch,
        - state that the session keeps from earlier calls,
        - a wrong update by the optimizer.
        """
        case = self.context.case
        for number in range(1, BATCHES + 1):
            other = case.material.with_batch(case.batch_of(case.batch, case.time, number))
            if causes := self._search_arguments(other, f"batch {number + 1} of training"):
                return causes
        return self._search_kept_state(case.material) or self._search_updates(check)

    def _search_other_arguments(self, wrong: Mapping[str, Finding]) -> Causes | None:
        causes = None
        for check in wrong:
            if check == LARGE:
                causes = next(filter(None, map(self._search_large_sizes, LARGE_SIZES)), None)
            elif check in OTHER_ARGUMENTS:
                material = OTHER_ARGUMENTS[check](self.context.case)
                causes = self._search_arguments(material, check) if material else None
            if causes is not None:
                break
        return causes

    def _search_large_sizes(self, phase: Phase) -> Causes | None:
        case = large_case(self.context.case, self.context.own, phase)
        finder = replace(self, context=replace(self.context, case=case))
        return finder._search_arguments(case.material, LARGE)

    def _search_arguments(self, material: Arguments, where: str) -> Causes | None:
        try:
            result = self._search_forward("training", material) or self._search_nodes(material)
            result = result or self._search_backward(material, {})
        except WorkerFault:
            return None
        if result is None:
            return None
        causes = [
            replace(cause, what=f"with the data of {where}: {cause.what}") for cause in result.items
        ]
        return replace(result, items=causes)

    def _primitive_causes(self, finding: Finding) -> Causes:
        """Return a wrong primitive as the first cause. The first values of the model that are wrong
        because of it follow."""
        cause = Cause("primitive", finding.faults[0])
        try:
            forward = self._search_forward("training", self.context.case.material) or Causes(())
        except WorkerFault:
            forward = Causes(())
        return replace(forward, items=[cause, *forward.items])

    # The passes that the search runs, on changed programs or with replaced values.

    def _search_forward(self, phase: Phase, material: Arguments) -> Causes | None:
        """Return as causes the forward values that are wrong although their inputs are right; None
        if all values agree. The search replaces the first wrong value by the right value, in all
        time steps, and runs the pass again. If a later value is still wrong, it is a second cause.
        """
        context, loss = self.context, phase == "training"
        second_values = None
        if self.other is not None:
            values = _trace_pass(self.other, phase, material)
            second_values = {(n, s): a for n, s, a in values if isinstance(a, np.ndarray)}
        expected = Expectations(
            context.case, material, context.dtype, phase=phase, loss=loss, others=second_values
        )
        wrong_parts = expected.wrong(_trace_pass(context, phase, material))
        if not wrong_parts:
            return None
        causes: list[Cause] = []
        replaced: set[str] = set()
        while wrong_parts and len(causes) < MAX_CAUSES:
            first = wrong_parts[0]
            cause = _forward_cause(expected.locate(first))
            # If an equation is wrong in a second layer too, its values are replaced in all layers.
            repeated = cause.place and any(cause.place == other.place for other in causes)
            causes.append(cause)
            replaced |= expected.names_at(cause.place) if repeated else {first.name}
            replacements = [
                (name, step, array)
                for (name, step), array in expected.values.items()
                if name in replaced and array.dtype.kind == "f"
            ]
            traced = context.remote.trace(phase, material, loss=loss, instead=replacements)
            wrong_parts = [part for part in expected.wrong(traced) if part.name not in replaced]
        remaining = f"{wrong_parts[0].name} still differs" if wrong_parts else ""
        return replaced_causes(
            causes, f"values of {self.against}", "everything else agrees", remaining
        )

    def _search_nodes(self, material: Arguments) -> Causes | None:
        """Run each node of the program as a separate program on the backend, with right inputs.
        Return the nodes whose results are wrong; None if there are none.

        This search finds faults that a trace (a run that records all intermediate values) does not
        show: a trace runs operations one by one, but these programs are compiled and keep their
        loops.
        """
        context = self.context
        run = Pass("outputs", "training", material)
        cell = Cell("", "", context.device, context.dtype, context.path)
        failure = Failure(cell, context.case.training, context.case.inference, run)
        segments = Segments(failure)
        causes: list[Cause] = []
        for number, node in enumerate(failure.program.nodes):
            node_failure = segments.extract(number, number + 1)
            if node_failure is None or len(causes) >= MAX_CAUSES:
                continue
            try:
                wrong_names = self._wrong_outputs(node_failure)
            except (WorkerFault, HarnessError):
                continue
            if wrong_names:
                text = (
                    f"{describe_node(node)} receives right inputs and computes wrong values of "
                    f"{join_names(wrong_names)}; it is right when its operations run one by one"
                )
                causes.append(Cause("forward", text, tuple(wrong_names), node.place))
        return Causes(causes, True, "all other parts are right when run alone") if causes else None

    def _wrong_outputs(self, failure: Failure) -> list[str]:
        dtype = self.context.dtype
        expected = failure.run_oracle().only("output.")
        material = failure.run.material
        remote = _open_loaded(self.context, failure.training, failure.inference, material)
        deviations = expected.deviations(
            select_prefixes(remote.gradients(material), "output."), dtype
        )
        # Leave out wrong shapes and dtypes: they do not depend on the inputs.
        wrong = [d for d in deviations if not d.agrees and not d.reason]
        return [d.name.removeprefix("output.") for d in wrong]

    def _search_backward(self, material: Arguments, along: Mapping[str, Array]) -> Causes | None:
        context = self.context
        ask_second = partial(_run_gradients, self.other) if self.other else None
        ask, dtype = partial(_run_gradients, context), context.dtype
        return BackwardSearch(
            context.case, material, ask, dtype, self.against, along, ask_second
        ).find_causes()

    def _wrong_directions(self, material: Arguments) -> list[str]:
        """Test the gradient of each output and each new state alone, on the test arrays
        ``material``. Return the names of the outputs and states whose gradients are wrong."""
        context, names = self.context, []
        case = context.case
        context.open()
        context.remote.load(material)
        for name in case.cotangents:
            along = {n: a if n == name else 0 * a for n, a in case.cotangents.items()}
            expected = case.gradients(material, f"along {name}", along).only("gradient.")
            gradients = select_prefixes(context.remote.gradients(material, along), "gradient.")
            if not all(d.agrees for d in expected.deviations(gradients, context.dtype)):
                names.append(name)
        return names

    def _search_kept_state(self, material: Arguments) -> Causes | None:
        """Compute the gradients of one batch twice in one session, with a different batch in
        between. If only the second gradients are wrong, the session has kept something from the
        other batch: return this as the cause. Otherwise return None."""
        context, case = self.context, self.context.case
        context.open()
        context.remote.load(material)
        expected = case.gradients(material, "main").only("gradient.")
        other = material.with_batch(case.batch_of(case.batch, case.time))
        first, _, again = (
            select_prefixes(context.remote.gradients(m), "gradient.")
            for m in (material, other, material)
        )
        if not all(d.agrees for d in expected.deviations(first, context.dtype)):
            return None
        names = [d.name for d in expected.deviations(again, context.dtype) if not d.agrees]
        if not names:
            return None
        text = (
            f"{join_names(names)}: right in the first call of a session, but wrong in a later call"
        )
        proof = "the session keeps state from earlier calls"
        return replace(Causes.single("backward", text, names, proof), proved=True)

    def _search_updates(self, check: str) -> Causes | None:
        context, case = self.context, self.context.case
        own = check == "training"
        rule = case.spec.update if own else case.spec.rule("sgd")
        if rule is None:
            return None
        rate = rule.attributes["learning_rate"] if own else RATE
        batches, expected = plan_steps(case, rule, rate, context.dtype)
        if self.other is not None:
            programs = (case.training, case.inference)
            steps = _run_steps(self.other, *programs, rule, case.material, batches)
            values = step_arrays(steps, case.material)
            noise = {n: 2 * e for n, e in expected.noise(context.dtype).items()}
            values_float64 = {n: widen(a) for n, a in values.items()}
            expected = Expected.within(values_float64, noise, context.dtype)
        return update_causes(
            case, rule, batches, expected, partial(_run_steps, context), context.dtype
        )


def _trace_pass(context: Context, phase: Phase, material: Arguments) -> Sequence[Traced]:
    """Open a session of the program of the test case, load its parameters, and run one pass on the
    arrays ``material``. Return the trace: all intermediate values by name and time step."""
    remote = _open_loaded(context, context.case.training, context.case.inference, material)
    return remote.trace(phase, material, loss=phase == "training")


def _open_loaded(
    context: Context,
    training: Program,
    inference: Program,
    material: Arguments,
    rule: UpdateRule | None = None,
) -> Remote:
    """Open a session of a training and an inference program on the context's backend, and load the
    parameters of ``material``. Return the client that sends calls to the worker process."""
    context.remote.open(training, inference, rule, context.path, context.dtype, context.device)
    context.remote.load(material)
    return context.remote


def _run_gradients(
    context: Context, training: Program, inference: Program, batch: Arguments
) -> Tensors:
    return select_prefixes(
        _open_loaded(context, training, inference, batch).gradients(batch), "gradient."
    )


def _run_steps(
    context: Context,
    training: Program,
    inference: Program,
    rule: UpdateRule,
    material: Arguments,
    batches: Batches,
) -> Sequence[Step]:
    remote = _open_loaded(context, training, inference, material, rule)
    return remote.train(batches, material.state)


def _forward_cause(location: Location) -> Cause:
    part = location.part
    step = "" if part.step is None else ","
    text = f"{location.where}{step} is the first wrong value"
    if part.reason:
        return Cause("forward", f"{text}: {part.reason}", (part.name,), location.place)
    return Cause("forward", text, (part.name,), location.place, part.error, location.hint)


def _wrong_names(*findings: Finding) -> list[str]:
    return [d.name for finding in findings for d in finding.deviations if not d.agrees]
