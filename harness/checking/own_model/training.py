"""Optimizer steps of a user's own model, compared with the spec's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harness.arrays import ArrayDict, Arrays
from harness.checking.checks.context import Batches, select_names
from harness.checking.checks.training import RATE, batches_of, find_stable_rate
from harness.checking.own_model.checks import ModelContext
from harness.oracle.case import Case, step_values
from harness.oracle.oracle import Oracle
from harness.program.ir import Port, Program, needed, reads
from harness.program.serial import encoded
from harness.program.signature import result_ports
from harness.program.updates import UpdateRule
from harness.results.findings import Finding
from harness.runtime.session import Session
from harness.worker.remote import Tensors

STEPS = 3
ADAM_RATE = 0.001


def sgd(context: ModelContext) -> Iterator[Finding]:
    """Compare the weights after each of three steps of plain gradient descent."""
    yield from _compare_steps(context, "training-sgd", context.case.spec.rule("sgd"), RATE)


def adam(context: ModelContext) -> Iterator[Finding]:
    """Compare the weights after each of three steps of Adam. The check runs in float64 only,
    because Adam divides each gradient by its size, which amplifies rounding errors."""
    if context.dtype == "float64":
        rule = context.case.spec.rule("adam")
        yield from _compare_steps(context, "training", rule, ADAM_RATE)


def _compare_steps(
    context: ModelContext, check: str, rule: UpdateRule, rate: float
) -> Iterator[Finding]:
    """Train the model with its framework's own optimizer, on batches of the loss of the spec."""
    case, remote = context.case, context.remote
    if not context.takes_steps or not remote.call("use_optimizer", rule=encoded(rule)):
        return
    material = context.material(case.material, noisy=True)
    drawn = batches_of(case, STEPS)

    def batches_at(rate: float) -> Batches:
        return [{**batch, "learning_rate": rate} for batch in drawn]

    rate, expected = find_stable_rate(
        rate,
        context.dtype,
        lambda rate: case.train(rule, batches_at(rate), material, ("a user's model", rate)),
    )
    remote.load(material)
    deviations = []
    for number, batch in enumerate(batches_at(rate), start=1):
        inputs = batch["inputs"]
        found = remote.forward("training", inputs, material.state)
        outputs = {n: a for n, a in found.items() if isinstance(a, np.ndarray)}
        along = loss_cotangents(case, outputs, {**inputs, **batch["targets"]})
        weights = remote.call(
            "train",
            inputs=inputs,
            state=material.state,
            cotangents=along,
            learning_rate=batch["learning_rate"],
        )
        step = {"results": {}, "parameters": weights, "statistics": {}, "slots": {}}
        values: Tensors = dict(step_values(number, step, material))
        deviations += context.finding(check, values, select_names(expected, values)).deviations
    yield Finding(check, deviations)


def loss_cotangents(case: Case, outputs: Arrays, given: Arrays) -> ArrayDict:
    """Return the gradients of the spec's loss with respect to the outputs of a model.

    Args:
        case: The test case, whose training program has a loss.
        outputs: The outputs by ``output.NAME``, and other results.
        given: The inputs and targets that the loss reads, by name.
    """
    program = _loss_program(case.training)
    names = [port.name for port in program.inputs]
    inputs = {n: outputs[f"output.{n}"] if f"output.{n}" in outputs else given[n] for n in names}
    targets = {port.name: given[port.name] for port in program.targets}
    session = Session(Oracle(), program, program, path="equations", dtype="float64")
    session.load({}, {})
    floats = {n: np.asarray(a, np.float64) if a.dtype.kind == "f" else a for n, a in inputs.items()}
    _, gradients = session.gradients("training", floats, {}, targets)
    zeros = {n: np.zeros(a.shape) for n, a in outputs.items() if n in _results(case.training)}
    return zeros | {
        f"output.{n}": gradients[f"input.{n}"] for n in names if f"output.{n}" in outputs
    }


def _results(program: Program) -> set[str]:
    return {n for n in result_ports(program, "forward") if not n.startswith("statistics.")}


def _loss_program(program: Program) -> Program:
    """Return the part of a program that computes the loss from the float outputs, as inputs."""
    outputs = {p.value: p for p in program.outputs if program.type_of(p).kind == "float"}
    nodes = needed(program.nodes, [program.loss], lambda n: {*n.outputs} - {*outputs}, reads)
    used = {program.loss, *(value for node in nodes for value in reads(node))}
    return replace(
        program,
        nodes=nodes,
        inputs=(
            *(Port(p.name, v) for v, p in outputs.items() if v in used),
            *(port for port in program.inputs if port.value in used),
        ),
        state=(),
        statistics=(),
        parameters=(),
        outputs=(),
        new_state=(),
        new_statistics=(),
        metrics=(),
        room=(),
    )
