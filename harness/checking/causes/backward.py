"""The search for the causes of wrong gradients: replace the first wrong gradient by the right one,
and see which other gradients are still wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import numpy as np

from harness.arrays import Array, Arrays
from harness.checking.causes.cause import MOST, Cause, Causes, label, substituted
from harness.checking.failure import inner_product
from harness.checking.first_difference import listed
from harness.checking.reproducer import chosen_sizes
from harness.language.wellformed import OUTGOING
from harness.oracle.case import Case
from harness.oracle.tolerance import Deviation, relative_error
from harness.oracle.yardstick import Expected, Reference
from harness.program.builder import Builder
from harness.program.ir import Node, Port, Program, reads
from harness.program.passes.rebuild import renamed
from harness.program.signature import noise_ports
from harness.runtime.answers import Arguments
from harness.runtime.session import Session
from harness.worker.remote import Tensors

# The search runs a changed program. It returns the gradients of intermediate values, and the caller
# can replace such a gradient by the right one.
#
# A tap is an input of zeros that is added to an intermediate value, so the gradient of the tap is
# the gradient of the value. A cut value ``y`` becomes ``stop_gradient(y) + tap`` and passes no
# gradient backwards. Instead, ``sum(y * pull)`` is added to the loss: the input ``pull`` is then
# the gradient of ``y``.

TAP, PULL, ALONG = "tap.", "pull.", "along."


def tap_names(program: Program) -> dict[int, str]:
    """Return, for each float value outside of loops, the name of its tap."""
    return {
        value: program.names.get(value) or f"value {value}"
        for node in program.nodes
        if node.op not in ("constant", "extent")
        for value in node.outputs
        if program.types[value].kind == "float" and value != program.loss
    }


def tapped(program: Program, cut: Collection[str] = ()) -> Program:
    """Return the program with a tap on each float value; values named in ``cut`` pass no
    gradient."""
    builder = Builder(dict(program.types), dict(program.names))
    names = tap_names(program)
    moved: dict[int, int] = {}
    inputs: list[Port] = []
    terms = [program.loss]

    def added(name: str, value: int) -> int:
        """Add an input of the same type as a value, and return it."""
        inputs.append(Port(name, builder.value(builder.types[value])))
        return inputs[-1].value

    for node in program.nodes:
        builder.nodes += renamed([node], moved)
        builder.place = node.place
        for value in node.outputs:
            if value not in names:
                continue
            tap, passed = added(f"{TAP}{names[value]}", value), value
            if names[value] in cut:
                pull = added(f"{PULL}{names[value]}", value)
                terms.append(inner_product(builder, value, pull))
                passed = builder.emit("stop_gradient", value)
            moved[value] = builder.emit("add", passed, tap)
    for prefix, ports in (("output.", program.outputs), ("state.", program.new_state)):
        for port in ports:
            value = moved.get(port.value, port.value)
            if builder.types[value].kind == "float":
                direction = added(f"{ALONG}{prefix}{port.name}", value)
                terms.append(inner_product(builder, value, direction))
    results: dict[str, Any] = {
        group: tuple(replace(p, value=moved.get(p.value, p.value)) for p in getattr(program, group))
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


def untapped(program: Program, like: Program) -> Program:
    """Return the inference program with the same inputs as ``like``; it ignores the added
    inputs."""
    builder = Builder(dict(program.types), dict(program.names))
    known = {port.name for port in (*program.inputs, *noise_ports(like))}
    extra = [
        Port(port.name, builder.value(like.type_of(port)))
        for port in like.inputs
        if port.name not in known
    ]
    return replace(program, types=builder.types, inputs=(*program.inputs, *extra))


def _with_taps(
    program: Program, material: Arguments, pulls: Arrays, along: Mapping[str, Array]
) -> Arguments:
    """Return the arguments of the tapped program. Taps are zeros. ``pulls`` has the gradients of
    the cut values, and ``along`` the direction of each result along which gradients are taken."""
    bound = chosen_sizes(program, material)
    inputs = dict(material.inputs)
    for port in program.inputs:
        if port.name not in inputs:
            prefix, _, name = port.name.partition(".")
            given = {"pull": pulls, "along": along}.get(prefix, {})
            inputs[port.name] = given.get(name, np.zeros(program.shape(port, bound)))
    return replace(material, inputs=inputs)


# A function that opens a session of two programs on the backend and returns the gradients of the
# loss.
Ask = Callable[[Program, Program, Arguments], Tensors]
# Gradients are reported as scaled if they are the right gradients times one factor, up to the
# relative error SAME, and if the factor differs from 1 by more than APART.
SAME, APART = 1e-4, 1e-2
GRADIENT, INPUT = "gradient.", "gradient.input."


@dataclass(frozen=True)
class Backward:
    """A search for the operations that compute wrong gradients. ``ask`` runs programs on the
    backend. ``along`` has the directions of results whose gradients are added to those of the
    loss."""

    case: Case
    material: Arguments
    ask: Ask
    dtype: str
    reference: str
    along: Mapping[str, Array]
    others: Ask | None = None  # runs programs on a second backend, compared instead of the oracle

    def causes(self) -> Causes | None:
        """Return the layers that turn right gradients into a wrong one; None if all gradients are
        right."""
        pulls: dict[str, Array] = {}
        found: list[Cause] = []
        excused: set[str] = set()
        wrong, right, made = self._wrong(pulls, excused)
        if wrong and (scaled := _scaled(wrong, right, made)):
            return scaled
        while wrong and len(found) < MOST:
            cause, names = self._first(wrong)
            found.append(cause)
            excused |= names
            for name in names:
                if name.startswith(f"{INPUT}{TAP}"):
                    pulls[name.removeprefix(f"{INPUT}{TAP}")] = right[name]
            wrong, right, _ = self._wrong(pulls, excused)
        if not found:
            return None
        left = listed([n.removeprefix(GRADIENT) for n in wrong])
        left = f"other gradients still differ: {left}" if wrong else ""
        return substituted(
            found, f"gradients of {self.reference}", "all other gradients agree", left
        )

    def _wrong(
        self, pulls: Mapping[str, Array], excused: set[str]
    ) -> tuple[dict[str, Deviation], Arrays, Tensors]:
        """Return the gradients that differ, the expected gradients, and the backend's gradients."""
        training = tapped(self.case.training, pulls.keys())
        programs = (training, untapped(self.case.inference, training))
        batch = _with_taps(training, self.material, pulls, self.along)
        expected = self._expected(programs, batch)
        found = {n: a for n, a in self.ask(*programs, batch).items() if _is_own(n)}
        wrong = {
            d.name: d
            for d in expected.deviations(found, self.dtype)
            if not d.agrees and d.name not in excused
        }
        return wrong, expected.values, found

    def _expected(self, programs: tuple[Program, Program], batch: Arguments) -> Expected:
        def run(session: Session) -> Sequence[Arrays]:
            session.load(batch.parameters, batch.statistics)
            _, gradients = session.gradients("training", batch.inputs, batch.state, batch.targets)
            named = {f"{GRADIENT}{n}": a for n, a in gradients.items()}
            return [{n: a for n, a in named.items() if _is_own(n)}]

        expected = Reference(*programs).expect(run)
        if self.others is None:
            return expected
        found = self.others(*programs, batch)
        values = {
            n: np.asarray(found[n], np.float64) if isinstance(found.get(n), np.ndarray) else a
            for n, a in expected.values.items()
        }
        noise = {n: 2 * e for n, e in expected.noise(self.dtype).items()}
        return Expected.within(values, noise, self.dtype)

    def _first(self, wrong: Mapping[str, Deviation]) -> tuple[Cause, set[str]]:
        """Return the wrong node that is nearest to the loss, and the names of its wrong
        gradients."""
        program = self.case.training
        taps = {value: f"{INPUT}{TAP}{name}" for value, name in tap_names(program).items()}
        names = {p.value: f"{GRADIENT}{p.name}" for p in program.parameters}
        names |= {p.value: f"{INPUT}{p.name}" for p in program.inputs}
        names |= {p.value: f"{GRADIENT}state.{p.name}" for p in program.state} | taps
        # The nodes that receive a wrong gradient from the nodes after them.
        late = {n.outputs for n in program.nodes if any(taps.get(o) in wrong for o in n.outputs)}
        for node in reversed(program.nodes):
            # If several nodes read a value, the nodes' gradients are summed. The sum is this node's
            # fault only if all of these nodes receive right gradients.
            made = {
                names.get(value, "")
                for value in (reads(node) if node.outputs not in late else ())
                if not any(o.outputs in late for o in program.nodes if value in reads(o))
            }
            if made := made & wrong.keys():
                return _cause(node, sorted(made), wrong), made
        return _cause(None, sorted(wrong), wrong), set(wrong)


def _scaled(wrong: Mapping[str, Deviation], right: Arrays, made: Tensors) -> Causes | None:
    """Return the cause if all gradients are the right ones times the same nonzero factor, else
    None."""
    names = [n for n, a in right.items() if np.abs(a).max(initial=0.0) > 0]
    found = {n: np.asarray(made[n], np.float64) for n in names if n in made}
    if len(found) < len(names) or any(found[n].shape != right[n].shape for n in names):
        return None
    product = sum(float((found[n] * right[n]).sum()) for n in names)
    factor = product / sum(float((right[n] ** 2).sum()) for n in names)
    if factor == 0 or not abs(factor - 1) > APART:
        return None
    for name in names:
        scale = float(np.abs(right[name]).max()) * abs(factor)
        if not relative_error(found[name], factor * right[name], scale) < SAME:
            return None
    what = f"every gradient is {factor:.6g} times the right gradient"
    error = max(d.error for d in wrong.values())
    proof = "divided by this factor all agree: the loss or the returned gradients are scaled"
    return Causes([Cause("backward", what, tuple(sorted(wrong)), "", error)], True, proof)


def _cause(node: Node | None, names: Sequence[str], wrong: Mapping[str, Deviation]) -> Cause:
    shown = listed([n.removeprefix(INPUT).removeprefix(TAP).removeprefix(GRADIENT) for n in names])
    error = max(wrong[name].error for name in names)
    what, place = f"the gradients of {shown} are wrong", ""
    if node is not None:
        place = node.place
        what = f"{label(node)} receives a right gradient and computes a wrong gradient of {shown}"
        if not any(n.startswith(f"{INPUT}{TAP}") for n in names):
            what += "; the gradient that it passes on is right"
    finite = error if np.isfinite(error) else None
    return Cause("backward", what, tuple(names), place, finite)


def _is_own(name: str) -> bool:
    """Return whether a gradient belongs to the model. Gradients of the inputs ``pull`` and
    ``along``, which the search adds, do not."""
    inputs = name.startswith(INPUT) and not name.startswith(f"{INPUT}{TAP}")
    added = name.startswith((f"{INPUT}pull.", f"{INPUT}along."))
    return name.startswith(GRADIENT) and not (inputs and added)
