"""Search for the causes of wrong training steps. The optimizer gets right gradients, so that only
the optimizer can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import numpy as np

from harness.arrays import Array, Arrays, widen
from harness.checking.causes.cause import Cause, Causes
from harness.checking.checks.context import Batches, Step
from harness.checking.first_difference import DECISIVE, join_names
from harness.checking.reduction import add_inner_product
from harness.oracle.case import Case, state_of, step_values
from harness.oracle.oracle import Oracle
from harness.oracle.tolerance import Deviation, relative_error, scales
from harness.oracle.yardstick import Expected, Reference
from harness.program.builder import Builder
from harness.program.ir import Port, Program
from harness.program.signature import port_shapes
from harness.program.updates import UpdateRule
from harness.results.findings import STEP
from harness.runtime.answers import Arguments
from harness.runtime.session import Session
from harness.worker.remote import WorkerFault

# Run the optimizer without the model, and try mistakes that would explain its results.
#
# The loss ``sum(p * g)`` over all parameters has exactly the gradient ``g`` at every point.

# A function that opens a session of a training and an inference program and an update rule on the
# backend, and returns the results of training steps.
Train = Callable[[Program, Program, UpdateRule, Arguments, Batches], Sequence[Step]]
GRADIENT = "given."
LOSS = ": loss"


def step_arrays(steps: Sequence[Step], material: Arguments) -> Arrays:
    """Return the values of successive training steps in one dictionary, with names such as ``step
    2: loss``. ``material`` has the parameters before the first step."""
    arrays: dict[str, Array] = {}
    for number, step in enumerate(steps, start=1):
        arrays |= step_values(number, step, material)
    return arrays


class OptimizerSteps:
    """Training steps of the optimizer without the model. The steps get the gradients that the
    oracle computes when it trains the whole model."""

    def __init__(self, case: Case, rule: UpdateRule, batches: Batches) -> None:
        self.case, self.rule = case, rule
        self.program = _linear_program(case.training)
        self.inference = replace(self.program, phase="inference")
        self.material = Arguments(dict(case.material.parameters), {}, {}, {}, {})
        self.batches = [
            {
                "inputs": {f"{GRADIENT}{n}": gradient for n, gradient in gradients.items()},
                "targets": {},
                "learning_rate": batch["learning_rate"],
            }
            for gradients, batch in zip(
                _oracle_gradients(case, rule, batches), batches, strict=True
            )
        ]
        reference = Reference(self.program, self.inference, rule)
        self.expected = reference.expect(lambda session: [self._run_steps(session, self.batches)])

    def _run_steps(
        self,
        session: Session,
        batches: Batches,
        before: Callable[[Session, int], None] = lambda session, number: None,
        times: int = 1,
    ) -> Arrays:
        """Run each training step ``times`` times, and call ``before(session, number)`` before each
        repetition.

        Return the loss, parameters and optimizer slots after each step, by names such as ``step 2:
        loss``.
        """
        session.load(self.material.parameters, {})
        steps = []
        for number, batch in enumerate(batches):
            repetitions = []
            for _ in range(times):
                before(session, number)
                repetitions.append(session.step(batch["inputs"], {}, {}, batch["learning_rate"]))
            steps.append({"results": repetitions[0], **session.read()})
        return step_arrays(steps, self.material)

    def run_on_backend(self, train: Train) -> Arrays:
        """Run the steps of the optimizer on the backend (by ``train``). Return their values, with
        names such as ``step 2: loss``."""
        steps = train(self.program, self.inference, self.rule, self.material, self.batches)
        return step_arrays(steps, self.material)

    def find_hint(self, results: Arrays, dtype: str) -> str:
        """Return a sentence about a mistake that explains the backend's ``results``, e.g. a
        learning rate rounded to float16. It is the first mistake in :data:`MISTAKES` with which the
        oracle gets the same results. Return an empty text if there is no such mistake."""
        for text, change in MISTAKES.items():
            noise = {n: 2 * e for n, e in self.expected.noise(dtype).items()}
            # Leave out losses: they depend on the batches, which a mistake may change.
            mistaken = {n: a for n, a in change(self).items() if not n.endswith(LOSS)}
            expected = {n: widen(a) for n, a in mistaken.items()}
            compared = {n: a for n, a in results.items() if not n.endswith(LOSS)}
            within = Expected.within(expected, noise, dtype)
            scale = scales(expected)
            pairs = ((expected[n], self.expected.values[n], scale[n]) for n in expected)
            effect = max(relative_error(*pair) for pair in pairs)
            rounded = {n: np.asarray(a, dtype) for n, a in expected.items()}
            least = max(d.tolerance for d in within.deviations(rounded, dtype))
            if effect > DECISIVE * least and all(
                d.agrees for d in within.deviations(compared, dtype)
            ):
                return f"The results match this fault: {text}"
        return ""

    def rerun(self, batches: Batches | None = None, **how: Any) -> Arrays:
        """Return the values that the oracle computes if it makes a mistake, e.g. if it uses changed
        ``batches``. ``how`` has other arguments of the method ``_run_steps`` that imitate a
        mistake. The values have names such as ``step 2: loss``."""
        programs = (self.program, self.inference)
        session = Session(Oracle(), *programs, path="derived", dtype="float64", rule=self.rule)
        return self._run_steps(session, batches or self.batches, **how)

    def rerun_with_rates(self, change: Callable[[list[float]], list[float]]) -> Arrays:
        """Return the values that the oracle computes with changed learning rates. ``change`` maps
        the list of the learning rates of all steps to a new list."""
        rates = change([batch["learning_rate"] for batch in self.batches])
        pairs = zip(self.batches, rates, strict=True)
        return self.rerun([{**batch, "learning_rate": rate} for batch, rate in pairs])


def _round_rate(rate: float, bits: int) -> float:
    """Return the learning rate ``rate`` rounded to ``bits`` binary digits after the leading digit,
    as a backend with a narrow dtype (e.g. float16) might round it."""
    fraction, exponent = np.frexp(rate)
    return float(np.ldexp(np.round(np.ldexp(fraction, bits + 1)), exponent - bits - 1))


def _delay_gradients(linear: OptimizerSteps) -> Arrays:
    before = [linear.batches[0], *linear.batches[:-1]]
    pairs = zip(linear.batches, before, strict=True)
    return linear.rerun([{**batch, "inputs": old["inputs"]} for batch, old in pairs])


def _empty_slots(session: Session, _: int) -> None:
    for tensors in session.slots.values():
        for name, tensor in tensors.items():
            tensors[name] = 0 * tensor


MISTAKES: Mapping[str, Callable[[OptimizerSteps], Arrays]] = {
    "the learning rate is always that of the first step": lambda linear: linear.rerun_with_rates(
        lambda rates: rates[:1] * len(rates)
    ),
    "the learning rate is that of the previous step": lambda linear: linear.rerun_with_rates(
        lambda rates: [rates[0], *rates[:-1]]
    ),
    "the learning rate is rounded to float16": lambda linear: linear.rerun_with_rates(
        lambda rates: [_round_rate(rate, bits=10) for rate in rates]
    ),
    "the learning rate is rounded to bfloat16": lambda linear: linear.rerun_with_rates(
        lambda rates: [_round_rate(rate, bits=7) for rate in rates]
    ),
    "the gradient is that of the previous step": _delay_gradients,
    "every step counts as the first step": lambda linear: linear.rerun(
        before=lambda session, _: setattr(session, "steps", 0)
    ),
    "the slots start from zeros in every step": lambda linear: linear.rerun(before=_empty_slots),
    "every update is applied twice": lambda linear: linear.rerun(
        before=lambda session, number: setattr(session, "steps", number), times=2
    ),
}


def _oracle_gradients(
    case: Case, rule: UpdateRule, batches: Batches
) -> Iterator[Mapping[str, Array]]:
    """Train with the oracle, and yield for each step a dictionary from parameter name to
    gradient."""
    material = case.material
    programs = (case.training, case.inference)
    session = Session(Oracle(), *programs, path="derived", dtype="float64", rule=rule)
    session.load(material.parameters, material.statistics)
    state: Mapping[str, Array] = material.state
    for batch in batches:
        _, gradients = session.gradients("training", batch["inputs"], state, batch["targets"])
        yield {port.name: gradients[port.name] for port in case.training.parameters}
        results = session.step(batch["inputs"], state, batch["targets"], batch["learning_rate"])
        state = state_of(results)


def _linear_program(program: Program) -> Program:
    """Return a program whose gradients are given arrays. Its loss is the sum of ``p * g`` over all
    parameters ``p``; each gradient ``g`` is an input of the program."""
    builder = Builder()
    parameters, inputs, terms = [], [], []
    for port in program.parameters:
        type_ = program.type_of(port)
        value, gradient = (
            builder.value(type_, port.name),
            builder.value(type_, f"{GRADIENT}{port.name}"),
        )
        parameters.append(replace(port, value=value))
        inputs.append(Port(f"{GRADIENT}{port.name}", gradient))
        terms.append(add_inner_product(builder, value, gradient))
    total = reduce(partial(builder.emit, "add"), terms) if terms else None
    return Program(
        name=program.name,
        phase="training",
        sizes=program.sizes,
        types=builder.types,
        names=builder.names,
        nodes=tuple(builder.nodes),
        inputs=tuple(inputs),
        targets=(),
        state=(),
        statistics=(),
        parameters=tuple(parameters),
        outputs=(),
        new_state=(),
        new_statistics=(),
        loss=total,
    )


def update_causes(
    case: Case,
    rule: UpdateRule,
    batches: Batches,
    expected: Expected,
    train: Train,
    dtype: str,
) -> Causes | None:
    """Return the causes of wrong training steps; None if all steps have the ``expected`` values.
    ``train`` runs steps on the backend.

    If a step is wrong, the backend runs the optimizer again without the model, on the oracle's
    gradients. If these steps are wrong too, the optimizer is the cause. These steps are compared
    with the oracle even if the ``expected`` values come from a second backend.
    """
    real_steps = step_arrays(
        train(case.training, case.inference, rule, case.material, batches), case.material
    )
    wrong = _find_first_wrong_step(expected, real_steps, dtype)
    if wrong is None:
        return None
    linear = OptimizerSteps(case, rule, batches)
    try:
        alone_steps = linear.run_on_backend(train)
    except WorkerFault as fault:
        proof = f"the optimizer alone could not be run: {fault}"
        return Causes.single("update", *wrong[:2], proof)
    wrong_alone = _find_first_wrong_step(linear.expected, alone_steps, dtype)
    if wrong_alone is None:
        proof = (
            "with the oracle's gradients the optimizer alone is right in every step: a step passes "
            "wrong values to the next step (state, statistics), or computes a wrong gradient"
        )
        return replace(Causes.single("update", *wrong[:2], proof), proved=True)
    hint = linear.find_hint(alone_steps, dtype)
    words, names, error = wrong_alone
    text = f"{rule.name} receives right gradients, but {words}"
    cause = Cause("update", text, names, _find_place(case, rule, names), error, hint)
    proof = "the optimizer received the oracle's gradients, so the optimizer itself is wrong"
    return Causes([cause], True, proof)


def _find_first_wrong_step(
    expected: Expected, results: Arrays, dtype: str
) -> tuple[str, tuple[str, ...], float | None] | None:
    """Find the first training step with wrong values.

    Return three things: a text about the wrong values, their names, and their largest error (None
    if it is not finite). Return None instead if all steps agree.
    """
    off = [d for d in expected.deviations(results, dtype) if not d.agrees]
    if not off:
        return None
    first = min(map(_step_number, off))
    wrong_values = [d for d in off if _step_number(d) == first]
    # Sort results before optimizer slots, and slots before the parameters that are computed from
    # them.
    wrong_values.sort(
        key=lambda d: (not d.name.endswith(LOSS), d.name.endswith(" moved"), -d.ratio)
    )
    error = max(d.error for d in wrong_values)
    names = tuple(d.name.partition(": ")[2] for d in wrong_values)
    are = "is the first wrong value" if len(names) == 1 else "are the first wrong values"
    words = f"step {first}: {join_names(names)} {are}"
    return words, names, error if np.isfinite(error) else None


def _step_number(deviation: Deviation) -> int:
    match = STEP.match(deviation.name)
    return int(match[1]) if match else 0


def _find_place(case: Case, rule: UpdateRule, names: Sequence[str]) -> str:
    """Return the ``file:line`` of the optimizer equation that computes the first of the wrong
    values ``names``, e.g. ``out.W moved``."""
    shapes = port_shapes(case.training, case.training.parameters)
    wrong = [name.rpartition(" ") for name in names]
    owner, slot = next(((n, s) for n, _, s in wrong if s != "moved"), (wrong[0][0], ""))
    owner_rule = rule.of(owner, len(shapes.get(owner, ())))
    slot_values = {port.name: port.value for port in owner_rule.new_slots}
    value = slot_values.get(slot, owner_rule.new_parameter)
    places = (node.place for node in owner_rule.nodes if value in node.outputs)
    return next(places, "")
