"""Search for the causes of wrong gradients. The search replaces the first wrong gradient by the
right gradient, and tests which other gradients are still wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import numpy as np

from harness.arrays import Array, Arrays
from harness.checking.causes.cause import MAX_CAUSES, Cause, Causes, describe_node, replaced_causes
from harness.checking.first_difference import join_names
from harness.checking.reduction import add_inner_product
from harness.checking.reproducer import bind_sizes
from harness.language.program_checks import OUTGOING
from harness.oracle.case import Case
from harness.oracle.tolerance import Deviation, relative_error
from harness.oracle.yardstick import Expected, Reference
from harness.program.builder import Builder
from harness.program.ir import Node, Port, Program, reads
from harness.program.passes.rebuild import renumber
from harness.program.signature import noise_ports
from harness.runtime.answers import Arguments
from harness.runtime.session import Session
from harness.worker.remote import Tensors

# The search runs a changed program, which returns the gradients of intermediate values. The search
# can replace such a gradient by the right gradient.
#
# A tap is an input of zeros that is added to an intermediate value, so the gradient of the tap is
# the gradient of the value. A cut value ``y`` becomes ``stop_gradient(y) + tap`` and passes no
# gradient backwards. Instead, ``sum(y * pull)`` is added to the loss: the input ``pull`` is then
# the gradient of ``y``.

TAP, PULL, ALONG = "tap.", "pull.", "along."


def tap_names(program: Program) -> dict[int, str]:
    """Return a dictionary from value number to a name, for each float value outside of loops.

    The search adds an input of zeros, called a tap, to each of these values. The gradient of the
    tap equals the gradient of the value, so the backend returns it like the gradient of an input.
    """
    return {
        value: program.names.get(value) or f"value {value}"
        for node in program.nodes
        if node.op not in ("constant", "extent")
        for value in node.outputs
        if program.types[value].kind == "float" and value != program.loss
    }


def add_taps(program: Program, cut: Collection[str] = ()) -> Program:
    """Return the program with an input of zeros (a tap) added to each float value. The gradient of
    a tap equals the gradient of its value.

    The values named in ``cut`` get right gradients instead of computed gradients: no gradient flows
    back to them, and for each of them an additional input ``pull`` sets the gradient.
    """
    builder = Builder(dict(program.types), dict(program.names))
    names = tap_names(program)
    new_values: dict[int, int] = {}
    inputs: list[Port] = []
    terms = [program.loss]

    def add_input(name: str, value: int) -> int:
        """Add a program input with the type of ``value``; return the value number of the input."""
        inputs.append(Port(name, builder.value(builder.types[value])))
        return inputs[-1].value

    for node in program.nodes:
        builder.nodes += renumber([node], new_values)
        builder.place = node.place
        for value in node.outputs:
            if value not in names:
                continue
            tap, passed = add_input(f"{TAP}{names[value]}", value), value
            if names[value] in cut:
                pull = add_input(f"{PULL}{names[value]}", value)
                terms.append(add_inner_product(builder, value, pull))
                passed = builder.emit("stop_gradient", value)
            new_values[value] = builder.emit("add", passed, tap)
    for prefix, ports in (("output.", program.outputs), ("state.", program.new_state)):
        for port in ports:
            value = new_values.get(port.value, port.value)
            if builder.types[value].kind == "float":
                direction = add_input(f"{ALONG}{prefix}{port.name}", value)
                terms.append(add_inner_product(builder, value, direction))
    results: dict[str, Any] = {
        group: tuple(
            replace(p, value=new_values.get(p.value, p.value)) for p in getattr(program, group)
        )
        for group in OUTGOING
    }
    return replace(
        program,
        types=builder.types,
        names=builder.names,
        inputs=(*program.inputs, *inputs),
        loss=reduce(partial(builder.emit, "add"), terms),
        nodes=tuple(builder.nodes),
        **results,
    )


def add_inputs(program: Program, like: Program) -> Program:
    """Return an inference program with the inputs that :func:`add_taps` has added to the training
    program ``like``. Both programs then have the same inputs, although the inference program does
    not use these."""
    builder = Builder(dict(program.types), dict(program.names))
    existing = {port.name for port in (*program.inputs, *noise_ports(like))}
    extra = [
        Port(port.name, builder.value(like.type_of(port)))
        for port in like.inputs
        if port.name not in existing
    ]
    return replace(program, types=builder.types, inputs=(*program.inputs, *extra))


def _tap_arguments(
    program: Program, material: Arguments, pulls: Arrays, along: Mapping[str, Array]
) -> Arguments:
    """Return the test arrays ``material`` extended by arrays for the inputs that :func:`add_taps`
    has added: zeros for all taps, and arrays for the others.

    ``pulls`` has the right gradient of each value in ``cut`` (see :func:`add_taps`). ``along`` has
    an array for each result: the direction along which its gradient is computed.
    """
    sizes = bind_sizes(program, material)
    inputs = dict(material.inputs)
    for port in program.inputs:
        if port.name not in inputs:
            prefix, _, name = port.name.partition(".")
            arrays = {"pull": pulls, "along": along}.get(prefix, {})
            inputs[port.name] = arrays.get(name, np.zeros(program.shape(port, sizes)))
    return replace(material, inputs=inputs)


# A function that opens a session of a training and an inference program on the backend, and returns
# the gradients of the loss.
Ask = Callable[[Program, Program, Arguments], Tensors]
# Gradients are reported as scaled if they are the right gradients times one factor, up to the
# relative error SAME_ERROR, and if the factor differs from 1 by more than LEAST_CHANGE.
SAME_ERROR, LEAST_CHANGE = 1e-4, 1e-2
GRADIENT, INPUT = "gradient.", "gradient.input."


@dataclass(frozen=True)
class BackwardSearch:
    """A search for the operations that compute wrong gradients.

    ``ask`` runs programs on the backend, and ``ask_second`` on a second backend. ``along`` maps
    outputs and new states, e.g. ``"output.logits"``, to random arrays. The loss is extended by the
    inner product of each output and its array, so that gradients of all outputs are tested.
    ``reference`` names what the backend is compared with.
    """

    case: Case
    material: Arguments
    ask: Ask
    dtype: str
    reference: str
    along: Mapping[str, Array]
    ask_second: Ask | None = (
        None  # runs programs on a second backend, compared instead of the oracle
    )

    def find_causes(self) -> Causes | None:
        """Return the layers that compute a wrong gradient from right gradients; None if all
        gradients are right."""
        pulls: dict[str, Array] = {}
        causes: list[Cause] = []
        explained: set[str] = set()
        deviations, expected, results = self._compare_gradients(pulls, explained)
        if deviations and (scaled := _find_common_factor(deviations, expected, results)):
            return scaled
        while deviations and len(causes) < MAX_CAUSES:
            cause, names = self._find_first(deviations)
            causes.append(cause)
            explained |= names
            for name in names:
                if name.startswith(f"{INPUT}{TAP}"):
                    pulls[name.removeprefix(f"{INPUT}{TAP}")] = expected[name]
            deviations, expected, _ = self._compare_gradients(pulls, explained)
        if not causes:
            return None
        remaining = join_names([n.removeprefix(GRADIENT) for n in deviations])
        remaining = f"other gradients still differ: {remaining}" if deviations else ""
        return replaced_causes(
            causes, f"gradients of {self.reference}", "all other gradients agree", remaining
        )

    def _compare_gradients(
        self, pulls: Mapping[str, Array], explained: set[str]
    ) -> tuple[dict[str, Deviation], Arrays, Tensors]:
        """Return three dictionaries: the deviations of the wrong gradients by name, all expected
        gradients, and the backend's gradients.

        ``pulls`` has the right gradients that replace computed gradients. Gradients named in
        ``explained`` do not count as wrong.
        """
        training = add_taps(self.case.training, pulls.keys())
        programs = (training, add_inputs(self.case.inference, training))
        batch = _tap_arguments(training, self.material, pulls, self.along)
        expected = self._expect_gradients(programs, batch)
        results = {n: a for n, a in self.ask(*programs, batch).items() if _is_compared(n)}
        deviations = {
            d.name: d
            for d in expected.deviations(results, self.dtype)
            if not d.agrees and d.name not in explained
        }
        return deviations, expected.values, results

    def _expect_gradients(self, programs: tuple[Program, Program], batch: Arguments) -> Expected:
        def run(session: Session) -> Sequence[Arrays]:
            session.load(batch.parameters, batch.statistics)
            _, gradients = session.gradients("training", batch.inputs, batch.state, batch.targets)
            gradients_by_name = {f"{GRADIENT}{n}": a for n, a in gradients.items()}
            return [{n: a for n, a in gradients_by_name.items() if _is_compared(n)}]

        expected = Reference(*programs).expect(run)
        if self.ask_second is None:
            return expected
        results = self.ask_second(*programs, batch)
        values = {
            n: np.asarray(results[n], np.float64) if isinstance(results.get(n), np.ndarray) else a
            for n, a in expected.values.items()
        }
        noise = {n: 2 * e for n, e in expected.noise(self.dtype).items()}
        return Expected.within(values, noise, self.dtype)

    def _find_first(self, wrong: Mapping[str, Deviation]) -> tuple[Cause, set[str]]:
        """Find the first node of the backward pass that computes a wrong gradient, i.e. the node
        nearest to the loss. ``wrong`` has the wrong gradients by name. Return the node as a cause,
        and the names of the wrong gradients that it computes."""
        program = self.case.training
        taps = {value: f"{INPUT}{TAP}{name}" for value, name in tap_names(program).items()}
        names = {p.value: f"{GRADIENT}{p.name}" for p in program.parameters}
        names |= {p.value: f"{INPUT}{p.name}" for p in program.inputs}
        names |= {p.value: f"{GRADIENT}state.{p.name}" for p in program.state} | taps
        # The nodes that receive a wrong gradient from the nodes after them.
        after_wrong = {
            n.outputs for n in program.nodes if any(taps.get(o) in wrong for o in n.outputs)
        }
        for node in reversed(program.nodes):
            # If several nodes read a value, the nodes' gradients are summed. The sum is this node's
            # fault only if all of these nodes receive right gradients.
            wrong_inputs = {
                names.get(value, "")
                for value in (reads(node) if node.outputs not in after_wrong else ())
                if not any(o.outputs in after_wrong for o in program.nodes if value in reads(o))
            }
            if wrong_inputs := wrong_inputs & wrong.keys():
                return _gradient_cause(node, sorted(wrong_inputs), wrong), wrong_inputs
        return _gradient_cause(None, sorted(wrong), wrong), set(wrong)


def _find_common_factor(
    deviations: Mapping[str, Deviation], expected: Arrays, results: Tensors
) -> Causes | None:
    """Return a cause if the backend's gradients are the right gradients times one nonzero factor,
    the same for all gradients; otherwise return None."""
    names = [n for n, a in expected.items() if np.abs(a).max(initial=0.0) > 0]
    actual = {n: np.asarray(results[n], np.float64) for n in names if n in results}
    if len(actual) < len(names) or any(actual[n].shape != expected[n].shape for n in names):
        return None
    product = sum(float((actual[n] * expected[n]).sum()) for n in names)
    factor = product / sum(float((expected[n] ** 2).sum()) for n in names)
    if factor == 0 or not abs(factor - 1) > LEAST_CHANGE:
        return None
    for name in names:
        scale = float(np.abs(expected[name]).max()) * abs(factor)
        if not relative_error(actual[name], factor * expected[name], scale) < SAME_ERROR:
            return None
    text = f"every gradient is {factor:.6g} times the right gradient"
    error = max(d.error for d in deviations.values())
    proof = "divided by this factor, all gradients agree: the loss or returned gradients are scaled"
    return Causes([Cause("backward", text, tuple(sorted(deviations)), "", error)], True, proof)


def _gradient_cause(
    node: Node | None, names: Sequence[str], deviations: Mapping[str, Deviation]
) -> Cause:
    names_text = join_names(
        [n.removeprefix(INPUT).removeprefix(TAP).removeprefix(GRADIENT) for n in names]
    )
    error = max(deviations[name].error for name in names)
    text, place = f"the gradients of {names_text} are wrong", ""
    if node is not None:
        place = node.place
        text = (
            f"{describe_node(node)} receives a right gradient and computes a wrong gradient of "
            f"{names_text}"
        )
        if not any(n.startswith(f"{INPUT}{TAP}") for n in names):
            text += "; the gradient that it passes on is right"
    finite = error if np.isfinite(error) else None
    return Cause("backward", text, tuple(names), place, finite)


def _is_compared(name: str) -> bool:
    """Return whether the gradient ``name`` is compared. Inputs that the search has added, with
    names that start with :data:`PULL` or :data:`ALONG`, are not part of the model, so their
    gradients are not compared."""
    inputs = name.startswith(INPUT) and not name.startswith(f"{INPUT}{TAP}")
    added = name.startswith((f"{INPUT}pull.", f"{INPUT}along."))
    return name.startswith(GRADIENT) and not (inputs and added)
