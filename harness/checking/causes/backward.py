"""Causes in a backward pass: the right gradient is fed in where one is first wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.checking.causes.cause import MOST, Cause, Causes, label, listed
from harness.oracle.case import Case
from harness.oracle.tolerance import Deviation, relative_error
from harness.oracle.yardstick import Expected, Reference
from harness.program.builder import Builder
from harness.program.dims import bind
from harness.program.ir import Node, Port, Program, reads
from harness.program.signature import noise_ports
from harness.runtime.answers import Arguments
from harness.runtime.session import Session
from harness.worker.remote import Tensors

# A program whose gradients show on the way, and can be put right there.
#
# A tap is an input of zeros that is added to a value: its gradient is the value's own. Where a
# value is cut, no gradient passes it backwards; one that is given takes the place of it:
# ``y -> stop_gradient(y) + tap``, and ``sum(y * pull)`` is added to the loss.

TAP, PULL, ALONG = "tap.", "pull.", "along."


@dataclass(frozen=True)
class Tapped:
    """The program, and the value behind each tap by the tap's name."""

    program: Program
    taps: Mapping[str, int]
    names: Mapping[int, str]

    def arguments(
        self, material: Arguments, pulls: Mapping[str, Array], along: Mapping[str, Array]
    ) -> Arguments:
        """A batch of it: zeros for taps, gradients of cut values, a direction of the results."""
        bound = _sizes(self.program, material)
        inputs = dict(material.inputs)
        for port in self.program.inputs:
            if port.name in inputs:
                continue
            prefix, _, name = port.name.partition(".")
            given = {"pull": pulls, "along": along}.get(prefix, {})
            shape = self.program.shape(port, bound)
            inputs[port.name] = given.get(name, np.zeros(shape))
        return replace(material, inputs=inputs)


def tapped(program: Program, cut: Collection[str] = ()) -> Tapped:
    """A program with a tap at every float value outside of loops, the values in ``cut`` cut."""
    assert program.loss is not None
    builder = Builder(dict(program.types), dict(program.names))
    moved: dict[int, int] = {}
    inputs: list[Port] = []
    taps: dict[str, int] = {}
    loss: list[int] = []
    for node in program.nodes:
        builder.append(_renamed(node, moved.get))
        builder.place = node.place
        for value in node.outputs:
            type_ = program.types[value]
            if type_.kind != "float" or value == program.loss or node.op in ("constant", "extent"):
                continue
            name = program.names.get(value) or f"value {value}"
            taps[name] = value
            tap = builder.value(type_)
            inputs.append(Port(f"{TAP}{name}", tap))
            passed = value
            if name in cut:
                pull = builder.value(type_)
                inputs.append(Port(f"{PULL}{name}", pull))
                loss.append(_inner(builder, value, pull))
                passed = builder.emit("stop_gradient", value)
            moved[value] = builder.emit("add", passed, tap)
    for prefix, ports in (("output.", program.outputs), ("state.", program.new_state)):
        for port in ports:
            value = moved.get(port.value, port.value)
            if builder.types[value].kind == "float":
                direction = builder.value(builder.types[value])
                inputs.append(Port(f"{ALONG}{prefix}{port.name}", direction))
                loss.append(_inner(builder, value, direction))
    total = program.loss
    for term in loss:
        total = builder.emit("add", total, term)
    made = replace(
        program,
        types=builder.types,
        names=builder.names,
        nodes=tuple(builder.nodes),
        inputs=(*program.inputs, *inputs),
        outputs=_ports(program.outputs, moved),
        new_state=_ports(program.new_state, moved),
        new_statistics=_ports(program.new_statistics, moved),
        metrics=_ports(program.metrics, moved),
        loss=total,
    )
    return Tapped(made, taps, {value: name for name, value in taps.items()})


def untapped(program: Program, like: Tapped) -> Program:
    """The program of inference with the same inputs, which it does not use."""
    builder = Builder(dict(program.types), dict(program.names))
    known = {port.name for port in (*program.inputs, *noise_ports(like.program))}
    extra = [
        Port(port.name, builder.value(like.program.type_of(port)))
        for port in like.program.inputs
        if port.name not in known
    ]
    return replace(program, types=builder.types, inputs=(*program.inputs, *extra))


def _inner(builder: Builder, one: int, other: int) -> int:
    product = builder.emit("multiply", one, other)
    axes = tuple(range(len(builder.types[product].shape)))
    return builder.emit("sum", product, axis=axes, keepdims=False) if axes else product


def _ports(ports: Iterable[Port], moved: Mapping[int, int]) -> tuple[Port, ...]:
    return tuple(replace(port, value=moved.get(port.value, port.value)) for port in ports)


def _renamed(node: Node, moved: Callable[[int, int], int]) -> Node:
    """A node, its body included, that reads other values."""
    inputs = tuple(moved(value, value) for value in node.inputs)
    body = node.body
    if body is not None:
        body = replace(
            body,
            nodes=tuple(_renamed(inner, moved) for inner in body.nodes),
            outputs=tuple(moved(value, value) for value in body.outputs),
        )
    return replace(node, inputs=inputs, body=body)


def _sizes(program: Program, material: Arguments) -> dict[str, int]:
    """The sizes that the arrays of a batch decide."""
    found: dict[str, int] = {}
    for group in ("inputs", "state", "targets"):
        ports: Sequence[Port] = getattr(program, group)
        arrays: ArrayDict = getattr(material, group)
        for port in ports:
            if port.name in arrays:
                shape = program.type_of(port).shape
                bind(port.name, shape, arrays[port.name].shape, program.sizes, found)
    return found


# Opens a session of programs on the backend, and gives its gradients of the loss.
Ask = Callable[[Program, Program, Arguments], Tensors]
# Gradients that are the right ones times one number are so to this relative error, if
# that number is another than 1.
SAME, APART = 1e-4, 1e-2
GRADIENT, INPUT = "gradient.", "gradient.input."


@dataclass(frozen=True)
class Backward:
    """One search: a case, the backend's answers, and the direction of results beside the loss."""

    case: Case
    material: Arguments
    ask: Ask
    dtype: str
    reference: str
    along: Mapping[str, Array]
    others: Ask | None = None  # another backend, in the oracle's place
    _last: Tensors = field(default_factory=dict)

    def causes(self) -> Causes | None:
        """The layers that make a wrong gradient of right ones; None if every gradient agrees."""
        pulls: dict[str, Array] = {}
        found: list[Cause] = []
        excused: set[str] = set()
        wrong, right = self._wrong(pulls, excused)
        if wrong and (scaled := self._scaled(wrong, right)):
            return scaled
        while wrong and len(found) < MOST:
            cause, names = self._first(wrong)
            found.append(cause)
            excused |= names
            for name in names:
                if name.startswith(f"{INPUT}{TAP}"):
                    pulls[name.removeprefix(f"{INPUT}{TAP}")] = right[name]
            wrong, right = self._wrong(pulls, excused)
        return Causes(found, not wrong, self._proof(found, wrong)) if found else None

    def _scaled(self, wrong: Mapping[str, Deviation], right: Arrays) -> Causes | None:
        """Whether every gradient is the right one times one number, which is not zero."""
        names = [n for n, a in right.items() if np.abs(a).max(initial=0.0) > 0]
        found = {n: np.asarray(self._last[n], np.float64) for n in names if n in self._last}
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
        what = f"every gradient is {factor:.6g} times the right one"
        error = max(d.error for d in wrong.values())
        proof = "divided by that number, all agree: it is how they begin, or are handed over"
        return Causes([Cause("backward", what, tuple(sorted(wrong)), "", error)], True, proof)

    def _wrong(
        self, pulls: Mapping[str, Array], excused: set[str]
    ) -> tuple[dict[str, Deviation], Arrays]:
        """The gradients that differ, by name, and those that are right."""
        made = tapped(self.case.training, pulls.keys())
        programs = (made.program, untapped(self.case.inference, made))
        batch = made.arguments(self.material, pulls, self.along)
        expected = self._expected(made, programs, batch)
        found = {n: a for n, a in self.ask(*programs, batch).items() if _is_own(n)}
        self._last.clear()
        self._last.update(found)
        return {
            d.name: d
            for d in expected.deviations(found, self.dtype)
            if not d.agrees and d.name not in excused
        }, expected.values

    def _expected(
        self, made: Tapped, programs: tuple[Program, Program], batch: Arguments
    ) -> Expected:
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
        """The node nearest to the loss that makes something wrong, and what it makes wrong."""
        program = self.case.training
        made = tapped(program)
        late = {
            node.outputs: any(
                f"{INPUT}{TAP}{made.names[o]}" in wrong for o in node.outputs if o in made.names
            )
            for node in program.nodes
        }
        for node in reversed(program.nodes):
            if late[node.outputs]:
                continue  # it is given a wrong gradient
            names = {n for n in self._made(node, made, late) if n in wrong}
            if names:
                return self._cause(node, sorted(names), wrong), names
        names = set(wrong)
        return self._cause(None, sorted(names), wrong), names

    def _made(
        self, node: Node, made: Tapped, late: Mapping[tuple[int, ...], bool]
    ) -> Iterator[str]:
        """The gradients that a node's backward pass makes; those that several nodes add to only if
        all of them are given right ones."""
        program = self.case.training
        ports = {p.value: p.name for p in program.parameters}
        ports |= {p.value: f"input.{p.name}" for p in program.inputs}
        ports |= {p.value: f"state.{p.name}" for p in program.state}
        for value in reads(node):
            if not any(late[o.outputs] for o in program.nodes if value in reads(o)):
                if value in made.names:
                    yield f"{INPUT}{TAP}{made.names[value]}"
                elif value in ports:
                    yield f"{GRADIENT}{ports[value]}"

    def _cause(
        self, node: Node | None, names: Sequence[str], wrong: Mapping[str, Deviation]
    ) -> Cause:
        shown = [n.removeprefix(INPUT).removeprefix(TAP).removeprefix(GRADIENT) for n in names]
        error = max(wrong[name].error for name in names)
        finite = error if np.isfinite(error) else None
        if node is None:
            what = f"the gradients of {listed(shown)} are wrong"
            return Cause("backward", what, tuple(names), "", finite)
        own = label(node)
        tap = any(n.startswith(f"{INPUT}{TAP}") for n in names)
        what = f"{own} is given a right gradient, and makes a wrong one of {listed(shown)}"
        if not tap:
            what += "; what it hands on is right"
        return Cause("backward", what, tuple(names), node.place, finite)

    def _proof(self, found: Sequence[Cause], wrong: Mapping[str, Deviation]) -> str:
        its = "its place" if len(found) == 1 else "their places"
        if wrong:
            left = listed([n.removeprefix(GRADIENT) for n in wrong])
            return f"with the gradients of {self.reference} in {its} others still differ: {left}"
        it = "it is the cause" if len(found) == 1 else "these are the causes"
        return f"with the gradients of {self.reference} in {its} all others agree: {it}"


def _is_own(name: str) -> bool:
    """Whether a gradient is of something that the model has: not of what was added to pull."""
    inputs = name.startswith(INPUT) and not name.startswith(f"{INPUT}{TAP}")
    added = name.startswith((f"{INPUT}pull.", f"{INPUT}along."))
    return name.startswith(GRADIENT) and not (inputs and added)
