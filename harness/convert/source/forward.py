"""Writer of the function that computes a whole model as source code, for all frameworks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from harness.convert.source.composites import is_composite
from harness.convert.source.emitter import WIDTH, Code, Dialect, Emitter, count_reads, mapping
from harness.convert.source.layers import SourceModel, is_zeros
from harness.convert.source.literals import text
from harness.language.initial_values import state_start
from harness.program.ir import Node


@dataclass(frozen=True)
class Forward:
    """The source code of the function that computes a whole model.

    ``outputs`` and ``after`` (the new state) have pairs of a name and the expression that is
    returned.
    """

    emitter: Emitter
    arguments: Sequence[str]
    state: Sequence[str]
    outputs: Sequence[tuple[str, str]]
    after: Sequence[tuple[str, str]]

    def lines(self, model: SourceModel, start: Sequence[str]) -> list[str]:
        """Return the source lines of the function's body. The last lines return the outputs and the
        new state.

        ``start`` has the lines that create the state if the caller passes no state.
        """
        e = self.emitter
        first = list(start) if self.state else []
        for name, port in zip(self.state, model.program.state, strict=True):
            first.append(f"{name} = state[{text(port.name)}]")
        sizes = e.free_sizes([port.value for port in model.program.inputs], first)
        lines = ["    " * e.depth + line for line in [*sizes, *first]] + e.lines
        lines += mapping(e.depth, "outputs = " if self.state else "return ", self.outputs)
        return [*lines, *(mapping(e.depth, "return outputs, ", self.after) if self.state else [])]


def emitter(model: SourceModel, dialect: Dialect, like: str, depth: int) -> Emitter:
    """Return an emitter (a writer of source code) for the equations of a model outside of its
    layers. ``like`` is the source of a tensor of the model's dtype."""
    return Emitter(dialect, model.types, model.name, model.program.sizes, like, depth)


def forward(
    model: SourceModel,
    e: Emitter,
    call: Callable[[Emitter, Node], None],
    reserved: Collection[str],
) -> Forward:
    """Write the function of the whole model with the emitter ``e``. ``call(e, node)`` writes the
    call of a layer. ``reserved`` has variable names that must not be used."""
    e.call, program = call, model.program
    e.reserved.update(reserved)
    results = [*model.outputs.values(), *model.state.values()]
    e.left = count_reads(model.nodes, results)
    ports = (*program.inputs, *program.state)
    e.left.update(port.value for port in ports)  # so that each argument gets its own name
    names = [e.argument(port.value, port.name) for port in ports]
    e.left.subtract(port.value for port in ports)
    e.block(model.nodes, results)
    outputs = [(n, e.read(e.tensor(e.operand(v)))) for n, v in model.outputs.items()]
    after = [(n, e.read(e.tensor(e.operand(v)))) for n, v in model.state.items()]
    count = len(program.inputs)
    return Forward(e, names[:count], names[count:], outputs, after)


def given(
    e: Emitter, model: SourceModel, node: Node, least: int = 0, width: int = WIDTH
) -> list[Code]:
    """Return the arguments of a layer's call (``node``) as expressions.

    If the expressions are longer than ``width`` characters, some of them are assigned to variables.
    Arguments at the end that are zeros are left out if there are at least ``least`` of them,
    because zeros are their default.
    """
    if is_composite(node):
        passed = len(node.outputs)
        if node.attributes["repeat"] > 1:  # a loop: its fixed arguments are computed before it
            return [*e.operands(node.inputs[:passed]), *e.operands(node.inputs[passed:], 0)]
        return e.operands(node.inputs, width)
    form, _ = model.calls[node.attributes["label"]]
    values = [value for _, value in form.roles(node)]
    count = len(values)
    while count > 1 and is_zeros(model.made.get(values[count - 1]), model.made):
        count -= 1
    if len(values) - count >= least:
        e.left.subtract(values[count:])
        values = values[:count]
    return e.operands(values, width)


def first_state(model: SourceModel, e: Emitter, head: str) -> list[str]:
    """Return the source lines of a function that returns the state before the first call; [] if the
    model has no state. ``head`` is the line with ``def``."""
    if not model.state:
        return []
    items = []
    for port in model.program.state:
        start = repr(state_start(port))
        shape = model.program.type_of(port).shape
        filled = e.dialect.filled(e, Code((start,), plain=True), shape)
        items.append((port.name, e.render(filled)))
    indent = "    " * e.depth
    lines = [head, f'{indent}"""The state before the first call."""']
    return [*lines, *mapping(e.depth, "return ", items)]


def settle(e: Emitter, values: Sequence[int], code: Code, word: str) -> None:
    """Write the results of a layer's call. A single result stays an expression, to be written where
    it is read; several results are assigned to variables. ``word`` is the variable name for results
    that have no name."""
    if len(values) == 1:
        e.settle(values[0], code, word)
        return
    called = e.read(code)
    names = []
    for value in values:
        names.append(e.name(e.base(value) or word))
        e.hold(value, names[-1])
    if names:
        e.write(f"{', '.join(names)} = {called}")
