"""Steps of an optimizer by itself, and the mistakes that would make up for what it does.

The loss ``sum(p * g)`` over all parameters has the gradient ``g`` exactly, whatever the parameters
are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from harness.arrays import Array, Arrays, widened
from harness.checking.first_difference import DECISIVE
from harness.oracle.case import Case, state_of, step_values
from harness.oracle.oracle import Oracle
from harness.oracle.tolerance import relative_error, scales
from harness.oracle.yardstick import Expected, Reference
from harness.program.builder import Builder
from harness.program.ir import Port, Program
from harness.program.updates import UpdateRule
from harness.runtime.arguments import Arguments
from harness.runtime.session import Session

Batch = Mapping[str, Any]
# Opens a session of programs with an optimizer on the backend, and gives its steps.
Train = Callable[[Program, Program, UpdateRule, Arguments, Sequence[Batch]], list[dict[str, Any]]]
GIVEN = "given."
LOSS = ": loss"


def step_arrays(steps: Sequence[Mapping[str, Any]], material: Arguments) -> Arrays:
    """The values of steps, one after the other, as checks compare them."""
    found: dict[str, Array] = {}
    for number, step in enumerate(steps, start=1):
        found |= step_values(number, step, material)
    return found


class Linear:
    """Steps of an optimizer on gradients that are given, those of the oracle's own steps."""

    def __init__(self, case: Case, rule: UpdateRule, batches: Sequence[Batch]) -> None:
        self.case, self.rule = case, rule
        self.program = _linear(case.training)
        self.inference = replace(self.program, phase="inference")
        self.material = Arguments(dict(case.material.parameters), {}, {}, {}, {})
        self.batches = [
            {
                "inputs": {f"{GIVEN}{n}": gradient for n, gradient in gradients.items()},
                "targets": {},
                "learning_rate": batch["learning_rate"],
            }
            for gradients, batch in zip(_gradients(case, rule, batches), batches, strict=True)
        ]
        self.expected = Reference(self.program, self.inference, rule).expect(self._run)

    def _run(self, session: Session) -> Iterator[Arrays]:
        yield self._trained(session, self.batches)

    def _trained(self, session: Session, batches: Sequence[Batch]) -> Arrays:
        session.load(self.material.parameters, {})
        steps = []
        for batch in batches:
            results = session.step(batch["inputs"], {}, {}, batch["learning_rate"])
            steps.append({"results": results, **session.read()})
        return step_arrays(steps, self.material)

    def steps(self, train: Train) -> Arrays:
        """The backend's."""
        made = train(self.program, self.inference, self.rule, self.material, self.batches)
        return step_arrays(made, self.material)

    def hint(self, found: Arrays, dtype: str) -> str:
        """What would make up for what the backend's optimizer does, in words; empty if unknown."""
        for text, change in MISTAKES.items():
            noise = {n: 2 * e for n, e in self.expected.noise(dtype).items()}
            # Losses are those of the batches that the mistake is made with.
            changed = {n: a for n, a in change(self).items() if not n.endswith(LOSS)}
            wanted = {n: widened(a) for n, a in changed.items()}
            own = {n: a for n, a in found.items() if not n.endswith(LOSS)}
            within = Expected.within(wanted, noise, dtype)
            scale = scales(wanted)
            pairs = ((wanted[n], self.expected.values[n], scale[n]) for n in wanted)
            effect = max(relative_error(*pair) for pair in pairs)
            narrow = {n: np.asarray(a, dtype) for n, a in wanted.items()}
            least = max(d.tolerance for d in within.deviations(narrow, dtype))
            if effect > DECISIVE * least and all(d.agrees for d in within.deviations(own, dtype)):
                return f"It is as if {text}"
        return ""

    def session(self) -> Session:
        """The oracle's."""
        return Session(
            Oracle(), self.program, self.inference, path="derived", dtype="float64", rule=self.rule
        )

    def changed(self, batches: Sequence[Batch]) -> Arrays:
        """What the oracle makes of other batches."""
        return self._trained(self.session(), batches)


def _rates(linear: Linear, rates: Sequence[float]) -> Arrays:
    pairs = zip(linear.batches, rates, strict=True)
    return linear.changed([{**batch, "learning_rate": rate} for batch, rate in pairs])


def _frozen(linear: Linear) -> Arrays:
    return _rates(linear, [linear.batches[0]["learning_rate"]] * len(linear.batches))


def _late_rate(linear: Linear) -> Arrays:
    rates = [batch["learning_rate"] for batch in linear.batches]
    return _rates(linear, [rates[0], *rates[:-1]])


def _short(linear: Linear, bits: int) -> Arrays:
    """With learning rates of so many bits beside the first."""
    rates = []
    for batch in linear.batches:
        fraction, exponent = np.frexp(batch["learning_rate"])
        rates.append(float(np.ldexp(np.round(np.ldexp(fraction, bits + 1)), exponent - bits - 1)))
    return _rates(linear, rates)


def _late_gradient(linear: Linear) -> Arrays:
    before = [linear.batches[0], *linear.batches[:-1]]
    pairs = zip(linear.batches, before, strict=True)
    return linear.changed([{**batch, "inputs": old["inputs"]} for batch, old in pairs])


def _between(linear: Linear, act: Callable[[Session], None]) -> Arrays:
    """Steps of the oracle with something done before each."""
    session = linear.session()
    session.load(linear.material.parameters, {})
    steps = []
    for batch in linear.batches:
        act(session)
        results = session.step(batch["inputs"], {}, {}, batch["learning_rate"])
        steps.append({"results": results, **session.read()})
    return step_arrays(steps, linear.material)


def _uncounted(linear: Linear) -> Arrays:
    return _between(linear, lambda session: setattr(session, "steps", 0))


def _forgetful(linear: Linear) -> Arrays:
    def reset(session: Session) -> None:
        for tensors in session.slots.values():
            for name, tensor in tensors.items():
                tensors[name] = 0 * tensor

    return _between(linear, reset)


def _twice(linear: Linear) -> Arrays:
    session = linear.session()
    session.load(linear.material.parameters, {})
    steps = []
    for number, batch in enumerate(linear.batches):
        made = []
        for _ in range(2):
            session.steps = number
            made.append(session.step(batch["inputs"], {}, {}, batch["learning_rate"]))
        steps.append({"results": made[0], **session.read()})
    return step_arrays(steps, linear.material)


MISTAKES: Mapping[str, Callable[[Linear], Arrays]] = {
    "the learning rate stayed that of the first step": _frozen,
    "the learning rate were that of the step before": _late_rate,
    "the learning rate were kept in float16": partial(_short, bits=10),
    "the learning rate were kept in bfloat16": partial(_short, bits=7),
    "the gradient were that of the step before": _late_gradient,
    "every step counted as the first": _uncounted,
    "the slots started from zeros at every step": _forgetful,
    "every update were applied twice": _twice,
}


def _gradients(
    case: Case, rule: UpdateRule, batches: Sequence[Batch]
) -> Iterator[Mapping[str, Array]]:
    """The gradients of the oracle's own steps, in turn."""
    material = case.material
    programs = (case.training, case.inference)
    session = Session(Oracle(), *programs, path="derived", dtype="float64", rule=rule)
    session.load(material.parameters, material.statistics)
    state: Mapping[str, Array] = material.state
    for batch in batches:
        _, found = session.gradients("training", batch["inputs"], state, batch["targets"])
        yield {port.name: found[port.name] for port in case.training.parameters}
        results = session.step(batch["inputs"], state, batch["targets"], batch["learning_rate"])
        state = state_of(results)


def _linear(program: Program) -> Program:
    """``sum(p * g)`` over all parameters, each ``g`` an input."""
    builder = Builder()
    parameters, inputs, total = [], [], None
    for port in program.parameters:
        type_ = program.type_of(port)
        value, given = builder.value(type_, port.name), builder.value(type_, f"{GIVEN}{port.name}")
        parameters.append(replace(port, value=value))
        inputs.append(Port(f"{GIVEN}{port.name}", given))
        product = builder.emit("multiply", value, given)
        axes = tuple(range(len(type_.shape)))
        term = builder.emit("sum", product, axis=axes, keepdims=False) if axes else product
        total = term if total is None else builder.emit("add", total, term)
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
