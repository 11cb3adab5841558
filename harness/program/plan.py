"""Plans: one step of a model with every size known, as a backend runs it at speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from harness.program.autodiff.differentiate import differentiate
from harness.program.axes import inverse
from harness.program.builder import Builder
from harness.program.flops import runs
from harness.program.ir import Node, Port, Program, Type, inline_calls, walk_nodes
from harness.program.passes import optimise
from harness.program.passes.unroll import LONGEST_FUSED
from harness.program.signature import crossing_ports, result_ports
from harness.program.updates import GOOD, SCALE, UpdateRule, at_shape, guarded, type_at

# Prefixes of the names of a batch's arrays.
BATCH = ("input.", "target.")
# The sum of losses, carried from step to step.
TOTAL = "loss.sum"


@dataclass(frozen=True)
class Plan:
    """Nodes without calls, and the values at the border by name.

    ``inputs`` and ``outputs`` map names to values. ``carried`` maps the name of an output to the
    input that it replaces in the next step. The caller gives such an input away, and it may be
    overwritten. ``sizes`` gives a number to every size, batch and time included. ``orders`` has the
    permutation of each batch input that the plan takes permuted: the caller permutes each batch
    once, not at every step. ``products`` is the dtype of the operands of products, if it is
    narrower than ``dtype``.
    """

    name: str
    types: Mapping[int, Type]
    sizes: Mapping[str, int]
    dtype: str
    nodes: tuple[Node, ...]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    carried: Mapping[str, str]
    orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    products: str = ""

    def shape(self, value: int) -> tuple[int, ...]:
        """Return the shape of a value, in numbers."""
        return tuple(dim.resolve(self.sizes) for dim in self.types[value].shape)

    @property
    def operations(self) -> Counter[str]:
        """Number of operations of each kind in a step; a loop's body counts once per loop step."""
        found: Counter[str] = Counter()
        for node, times in runs(self.nodes, self.types, self.sizes):
            found[node.op] += times
        return found


def forward_plan(
    program: Program,
    sizes: Mapping[str, int],
    dtype: str,
    fused: Iterable[str],
    *,
    moved: bool = True,
    fuses: bool = False,
) -> Plan:
    """Plan a forward pass: the outputs that nothing else uses, and the state. See
    :func:`harness.program.passes.optimise` for ``moved`` and ``fuses``."""
    builder = Builder(dict(program.types), dict(program.names))
    outputs = result_ports(program, "ends")
    nodes = _with_literal_zeros(inline_calls(program.nodes))
    nodes = optimise(nodes, outputs.values(), builder, sizes, fused, moved=moved, fuses=fuses)
    return _plan(program, builder, nodes, sizes, dtype, outputs, {})


def training_plan(
    program: Program,
    rule: UpdateRule,
    sizes: Mapping[str, int],
    dtype: str,
    fused: Iterable[str],
    *,
    learning_rate: float,
    total: bool = False,
    scales: bool = False,
    fuses: bool = False,
) -> Plan:
    """Plan a training step: loss, gradient, update. Slots are named ``m.rnn.W``, as in the rule.

    ``step`` comes in as a float, from 1, and goes out as the next step's. With ``total``, the loss
    is added to :data:`TOTAL`. With ``scales``, the loss is scaled, and the plan carries
    :data:`SCALE` and :data:`GOOD`. The program is optimised before and after it is differentiated:
    the first pass shortens the backward pass, too. See :func:`harness.program.passes.optimise` for
    ``fuses``.
    """
    fused = tuple(fused)
    builder = Builder(dict(program.types), dict(program.names))
    results = result_ports(program, "step")
    nodes = _with_literal_zeros(inline_calls(program.nodes))
    nodes = optimise(nodes, results.values(), builder, sizes, fused, final=False, fuses=fuses)
    whole = replace(program, nodes=nodes, types=builder.types, names=builder.names)
    (loss,) = (Port(n, v) for n, v in results.items() if n == "loss")
    derivative = differentiate(whole, [loss], program.parameters, results.values(), fused)
    builder = Builder(dict(derivative.program.types), dict(derivative.program.names))
    (seed,) = derivative.seeds
    seeds = () if scales else (Node("constant", (), (seed.value,), {"value": 1.0}),)
    step = builder.value(Type(()), "step")
    gradients = {
        p.name: g.value for p, g in zip(program.parameters, derivative.gradients, strict=True)
    }
    if scales:
        gradients = {n: builder.emit("divide", g, seed.value) for n, g in gradients.items()}
    further, updated = _updates(program, rule, gradients, builder, step, learning_rate)
    further["step"] = step
    if scales:
        further |= {SCALE: seed.value, GOOD: builder.value(Type(()), GOOD)}
        before = {p.name: p.value for p in program.parameters} | further
        updated = guarded(builder, gradients, before, updated)
    if total:
        further[TOTAL] = builder.value(Type(()), TOTAL)
        updated[TOTAL] = builder.emit("add", further[TOTAL], results["loss"])
    results |= updated
    nodes = (*seeds, *derivative.program.nodes, *_differences(builder.nodes, dtype))
    longest = LONGEST_FUSED if fuses else None
    nodes = optimise(nodes, results.values(), builder, sizes, fused, fuses=fuses, longest=longest)
    return _plan(program, builder, nodes, sizes, dtype, results, further)


def _with_literal_zeros(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Write ``0 * x`` as ``x - x``, which no rule takes for zeros.

    A rule replaces a product with a state of zeros, but a model's own ``0 * x`` must keep NaN. If
    ``x`` is made of an index or a condition, it is finite, and the product stays.
    """
    nodes = tuple(nodes)
    every = tuple(walk_nodes(nodes))
    zeros = {n.output for n in every if n.op == "constant" and n.attributes["value"] == 0}
    whole = {node.output for node in every if node.op == "astype"}
    return tuple(_zero_kept(node, zeros, whole) for node in nodes) if zeros else nodes


def _zero_kept(node: Node, zeros: set[int], whole: set[int]) -> Node:
    if node.body is not None:
        inner = tuple(_zero_kept(one, zeros, whole) for one in node.body.nodes)
        return replace(node, body=replace(node.body, nodes=inner))
    others = [value for value in node.inputs if value not in zeros]
    if node.op != "multiply" or len(others) != 1 or others[0] in whole:
        return node
    return replace(node, op="subtract", inputs=(others[0], others[0]))


def _updates(
    program: Program,
    rule: UpdateRule,
    gradients: Mapping[str, int],
    builder: Builder,
    step: int,
    learning_rate: float,
) -> tuple[dict[str, int], dict[str, int]]:
    """Emit every parameter's update; return the slots that come in and the values that go out."""
    rate = builder.constant(learning_rate)
    after = builder.emit("add", step, builder.constant(1.0))
    slots: dict[str, int] = {}
    updated = {"step": after}
    values: dict[str, dict[int, int]] = {}
    rules: dict[str, UpdateRule] = {}
    for parameter in program.parameters:
        shape = builder.types[parameter.value].shape
        own = rules[parameter.name] = rule.of(parameter.name, len(shape))
        env = values[parameter.name] = {
            own.parameter: parameter.value,
            own.gradient: gradients[parameter.name],
            own.step: step,
            own.learning_rate: rate,
        }
        for slot in own.slots:
            env[slot.value] = slots[f"{slot.name}.{parameter.name}"] = builder.value(
                type_at(own, slot.value, shape)
            )
    for number in range(len(rule.totals)):
        _add_total(number, rules, values, builder)
    for name, env in values.items():
        own = rules[name]
        _copy(own, own.nodes, env, builder)
        updated[name] = env[own.new_parameter]
        for slot in own.new_slots:
            updated[f"{slot.name}.{name}"] = env[slot.value]
    return slots, updated


def _differences(nodes: Iterable[Node], dtype: str) -> Iterator[Node]:
    """Compute differences of constants in the dtype, as the equations do.

    Adam divides by 1 - 0.999 ** t, which must equal 1 - 0.999 at t = 1. Both may be off, but by the
    same error, so that their quotient is exact.
    """
    kind = {"float32": np.float32}.get(dtype, np.float64)
    numbers: dict[int, float] = {}
    for node in nodes:
        if node.op == "constant":
            numbers[node.output] = node.attributes["value"]
        elif node.op == "subtract" and all(i in numbers for i in node.inputs):
            a, b = (kind(numbers[i]) for i in node.inputs)
            node = Node("constant", (), node.outputs, {"value": float(a - b)}, place=node.place)
            numbers[node.output] = node.attributes["value"]
        yield node


def _add_total(
    number: int,
    rules: Mapping[str, UpdateRule],
    values: Mapping[str, dict[int, int]],
    builder: Builder,
) -> None:
    """Append a sum over all parameters, and bind it in the rule of each."""
    whole = None
    for name, env in values.items():
        own = rules[name]
        total = own.totals[number]
        _copy(own, total.nodes, env, builder)
        part = env[total.part]
        whole = part if whole is None else builder.emit("add", whole, part)
    for name, env in values.items():
        env[rules[name].totals[number].value] = cast(int, whole)


def _copy(rule: UpdateRule, nodes: Iterable[Node], env: dict[int, int], builder: Builder) -> None:
    """Append a rule's nodes for one parameter, with new values."""
    shape = builder.types[env[rule.parameter]].shape
    for node in at_shape(rule, nodes, shape):
        for output in node.outputs:
            env[output] = builder.value(type_at(rule, output, shape))
        inputs = tuple(env[i] for i in node.inputs)
        builder.append(replace(node, inputs=inputs, outputs=tuple(env[o] for o in node.outputs)))


def _plan(
    program: Program,
    builder: Builder,
    nodes: tuple[Node, ...],
    sizes: Mapping[str, int],
    dtype: str,
    outputs: Mapping[str, int],
    further: Mapping[str, int],
) -> Plan:
    inputs = {f"{prefix}{p.name}": p.value for prefix, p in crossing_ports(program)}
    inputs |= further
    used = {value for node in walk_nodes(nodes) for value in node.inputs} | set(outputs.values())
    # An output with the name of an input is carried, even if a step does not read the input: a slot
    # with coefficient 0, or a state that is made of the batch alone.
    inputs = {n: value for n, value in inputs.items() if value in used or n in outputs}
    carried = {name: name for name in outputs if name in inputs}
    nodes, inputs, orders = _ordered(nodes, inputs)
    return Plan(program.name, builder.types, sizes, dtype, nodes, inputs, outputs, carried, orders)


def _ordered(
    nodes: tuple[Node, ...], inputs: Mapping[str, int]
) -> tuple[tuple[Node, ...], dict[str, int], dict[str, tuple[int, ...]]]:
    """Take batch inputs in the axis order into which the plan permutes them anyway. Other readers
    of such an input read it through the inverse."""
    taken, orders, back = dict(inputs), {}, []
    for name, value in inputs.items():
        if not name.startswith(BATCH):
            continue
        readers = [node for node in walk_nodes(nodes) if value in node.inputs]
        moves = [n for n in nodes if n.op == "permute_dims" and n.inputs == (value,)]
        if len(moves) != 1:
            continue
        (move,) = moves
        axes = move.attributes["axes"]
        nodes = tuple(node for node in nodes if node is not move)
        taken[name], orders[name] = move.output, axes
        if len(readers) > 1:
            back.append(Node("permute_dims", (move.output,), (value,), {"axes": inverse(axes)}))
    return (*back, *nodes), taken, orders
