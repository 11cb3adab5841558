"""Plans: optimised programs for a single training step or forward pass at known sizes."""

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
from harness.program.updates import GOOD, SCALE, UpdateRule, at_shape, type_at, with_loss_scaling

# Prefixes of the names of a batch's arrays.
BATCH = ("input.", "target.")
# The name of the sum of losses, which is carried from step to step.
TOTAL = "loss.sum"


@dataclass(frozen=True)
class Plan:
    """An optimised program at known sizes, which a backend runs once per step.

    - ``inputs`` and ``outputs`` map names to value numbers.
    - ``carried`` maps an output's name to an input's name: in the next step, the output becomes
      this input, and the backend may overwrite the input's array.
    - ``sizes`` has the number of every size, including batch and time.
    - ``orders`` maps the names of some batch inputs to a permutation of axes. The caller must
      permute this input in each batch before the step.
    - ``products`` is the dtype of the operands of matrix products if it is narrower than ``dtype``,
      e.g. ``bfloat16``; otherwise empty.
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
        """Return the shape of a value as numbers."""
        return tuple(dim.resolve(self.sizes) for dim in self.types[value].shape)

    @property
    def operations(self) -> Counter[str]:
        """How often each operation runs in a step. Operations in a loop run once for each step of
        the loop."""
        counts: Counter[str] = Counter()
        for node, times in runs(self.nodes, self.types, self.sizes):
            counts[node.op] += times
        return counts


def forward_plan(
    program: Program,
    sizes: Mapping[str, int],
    dtype: str,
    fused: Iterable[str],
    *,
    moved: bool = True,
    fuses: bool = False,
) -> Plan:
    """Return the plan of a forward pass, which computes the new state and the outputs.

    The plan omits an output that the program also reads to compute another output. ``fused`` names
    the fused operations of the backend, e.g. ``relu``. The arguments ``moved`` and ``fuses`` choose
    optimisations, see :func:`harness.program.passes.optimise`.
    """
    builder = Builder(dict(program.types), dict(program.names))
    outputs = result_ports(program, "ends")
    nodes = _with_literal_zeros(inline_calls(program.nodes))
    nodes = optimise(nodes, outputs.values(), builder, sizes, fused, moved=moved, fuses=fuses)
    return _build_plan(program, builder, nodes, sizes, dtype, outputs, {})


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
    """Return the plan of a training step, which computes the loss, the gradients and the update.

    An optimizer slot (e.g. a moment of Adam) has the name SLOT.PARAMETER, e.g. ``m.rnn.W``. The
    input ``step`` is the step number as a float, starting at 1; the output ``step`` is the next
    number. With ``total``, the plan also adds up the losses of all steps, in the output
    :data:`TOTAL`. With ``scales``, it uses loss scaling: it carries the scale (:data:`SCALE`) and
    the number of good steps (:data:`GOOD`) from step to step. The program is optimised before
    differentiation, which shortens the backward pass, and again afterwards. ``fuses`` chooses
    optimisations, see :func:`harness.program.passes.optimise`.
    """
    fused = tuple(fused)
    builder = Builder(dict(program.types), dict(program.names))
    results = result_ports(program, "step")
    nodes = _with_literal_zeros(inline_calls(program.nodes))
    nodes = optimise(nodes, results.values(), builder, sizes, fused, final=False, fuses=fuses)
    optimised = replace(program, nodes=nodes, types=builder.types, names=builder.names)
    (loss,) = (Port(n, v) for n, v in results.items() if n == "loss")
    derivative = differentiate(optimised, [loss], program.parameters, results.values(), fused)
    builder = Builder(dict(derivative.program.types), dict(derivative.program.names))
    (seed,) = derivative.seeds
    seeds = () if scales else (Node("constant", (), (seed.value,), {"value": 1.0}),)
    step = builder.value(Type(()), "step")
    gradients = {
        p.name: g.value for p, g in zip(program.parameters, derivative.gradients, strict=True)
    }
    if scales:
        gradients = {n: builder.emit("divide", g, seed.value) for n, g in gradients.items()}
    carried, updated = _append_updates(program, rule, gradients, builder, step, learning_rate)
    carried["step"] = step
    if scales:
        carried |= {SCALE: seed.value, GOOD: builder.value(Type(()), GOOD)}
        before = {p.name: p.value for p in program.parameters} | carried
        updated = with_loss_scaling(builder, gradients, before, updated)
    if total:
        carried[TOTAL] = builder.value(Type(()), TOTAL)
        updated[TOTAL] = builder.emit("add", carried[TOTAL], results["loss"])
    results |= updated
    nodes = (*seeds, *derivative.program.nodes, *_fold_differences(builder.nodes, dtype))
    longest = LONGEST_FUSED if fuses else None
    nodes = optimise(nodes, results.values(), builder, sizes, fused, fuses=fuses, longest=longest)
    return _build_plan(program, builder, nodes, sizes, dtype, results, carried)


def _with_literal_zeros(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Replace ``0 * x`` in a model's equations by ``x - x``. If x is NaN or infinite, both
    expressions are NaN.

    Without this, the rules for initial states of zeros, which assume finite numbers, would replace
    ``0 * x`` by zeros. If ``x`` is cast from an index or a condition, it is finite, and the product
    is not replaced.
    """
    nodes = tuple(nodes)
    every = tuple(walk_nodes(nodes))
    zeros = {n.output for n in every if n.op == "constant" and n.attributes["value"] == 0}
    finite = {node.output for node in every if node.op == "astype"}
    return tuple(_with_difference(node, zeros, finite) for node in nodes) if zeros else nodes


def _with_difference(node: Node, zeros: set[int], finite: set[int]) -> Node:
    """Replace ``0 * x`` by ``x - x`` in a node and in its body. ``zeros`` has the values that are
    the constant 0, and ``finite`` the values that cannot be NaN or infinite."""
    if node.body is not None:
        inner = tuple(_with_difference(inner_node, zeros, finite) for inner_node in node.body.nodes)
        return replace(node, body=replace(node.body, nodes=inner))
    others = [value for value in node.inputs if value not in zeros]
    if node.op != "multiply" or len(others) != 1 or others[0] in finite:
        return node
    return replace(node, op="subtract", inputs=(others[0], others[0]))


def _append_updates(
    program: Program,
    rule: UpdateRule,
    gradients: Mapping[str, int],
    builder: Builder,
    step: int,
    learning_rate: float,
) -> tuple[dict[str, int], dict[str, int]]:
    """Append the update of every parameter. Return two mappings from names to value numbers: the
    new inputs (the optimizer's slots), and the outputs (new parameters, new slots, next step).
    ``gradients`` maps a parameter to the number of its gradient."""
    rate = builder.constant(learning_rate)
    after = builder.emit("add", step, builder.constant(1.0))
    slots: dict[str, int] = {}
    updated = {"step": after}
    values: dict[str, dict[int, int]] = {}
    rules: dict[str, UpdateRule] = {}
    for parameter in program.parameters:
        shape = builder.types[parameter.value].shape
        own_rule = rules[parameter.name] = rule.of(parameter.name, len(shape))
        rule_values = values[parameter.name] = {
            own_rule.parameter: parameter.value,
            own_rule.gradient: gradients[parameter.name],
            own_rule.step: step,
            own_rule.learning_rate: rate,
        }
        for slot in own_rule.slots:
            rule_values[slot.value] = slots[f"{slot.name}.{parameter.name}"] = builder.value(
                type_at(own_rule, slot.value, shape)
            )
    for number in range(len(rule.totals)):
        _append_total(number, rules, values, builder)
    for name, rule_values in values.items():
        own_rule = rules[name]
        _append_rule(own_rule, own_rule.nodes, rule_values, builder)
        updated[name] = rule_values[own_rule.new_parameter]
        for slot in own_rule.new_slots:
            updated[f"{slot.name}.{name}"] = rule_values[slot.value]
    return slots, updated


def _fold_differences(nodes: Iterable[Node], dtype: str) -> Iterator[Node]:
    """Replace differences of constants by constants, which are computed in the dtype of the plan.

    In the first step of Adam, a factor 1 - 0.999 is divided by 1 - 0.999 ** t with t = 1. Both
    numbers must have the same rounding error, so that their quotient is exactly 1.
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


def _append_total(
    number: int,
    rules: Mapping[str, UpdateRule],
    values: Mapping[str, dict[int, int]],
    builder: Builder,
) -> None:
    """Append a sum over all parameters, e.g. of squared gradients, and give its value to the update
    rule of each parameter. ``number`` is the index of the sum in ``UpdateRule.totals``. ``values``
    maps a parameter to a mapping from its rule's values to values of the plan."""
    sum_of_parts = None
    for name, rule_values in values.items():
        own_rule = rules[name]
        total = own_rule.totals[number]
        _append_rule(own_rule, total.nodes, rule_values, builder)
        part = rule_values[total.part]
        sum_of_parts = part if sum_of_parts is None else builder.emit("add", sum_of_parts, part)
    for name, rule_values in values.items():
        rule_values[rules[name].totals[number].value] = cast(int, sum_of_parts)


def _append_rule(
    rule: UpdateRule, nodes: Iterable[Node], rule_values: dict[int, int], builder: Builder
) -> None:
    """Append the nodes of an update rule for one parameter. ``rule_values`` maps the rule's values
    to values of the plan."""
    shape = builder.types[rule_values[rule.parameter]].shape
    for node in at_shape(rule, nodes, shape):
        for output in node.outputs:
            rule_values[output] = builder.value(type_at(rule, output, shape))
        inputs = tuple(rule_values[i] for i in node.inputs)
        builder.append(
            replace(node, inputs=inputs, outputs=tuple(rule_values[o] for o in node.outputs))
        )


def _build_plan(
    program: Program,
    builder: Builder,
    nodes: tuple[Node, ...],
    sizes: Mapping[str, int],
    dtype: str,
    outputs: Mapping[str, int],
    carried_inputs: Mapping[str, int],
) -> Plan:
    """Return a plan with these optimised nodes. Inputs that no node reads are left out, unless an
    output has the same name. ``carried_inputs`` are inputs in addition to those of the program,
    e.g. the optimizer's slots."""
    inputs = {f"{prefix}{p.name}": p.value for prefix, p in crossing_ports(program)}
    inputs |= carried_inputs
    used = {value for node in walk_nodes(nodes) for value in node.inputs} | set(outputs.values())
    # Keep an input if an output has the same name, even if the step does not read the input. E.g. a
    # slot with coefficient 0, or a state that depends only on the batch.
    inputs = {n: value for n, value in inputs.items() if value in used or n in outputs}
    carried = {name: name for name in outputs if name in inputs}
    nodes, inputs, orders = _permute_inputs(nodes, inputs)
    return Plan(program.name, builder.types, sizes, dtype, nodes, inputs, outputs, carried, orders)


def _permute_inputs(
    nodes: tuple[Node, ...], inputs: Mapping[str, int]
) -> tuple[tuple[Node, ...], dict[str, int], dict[str, tuple[int, ...]]]:
    """Move permutations of batch inputs from the plan to its caller: an input that the plan would
    permute becomes an input that the caller has permuted already.

    Return three things: the new nodes, the inputs, and a mapping from an input's name to its
    permutation. Nodes that need the unpermuted input read an inverse permutation of the new input.
    """
    new_inputs, orders, inverses = dict(inputs), {}, []
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
        new_inputs[name], orders[name] = move.output, axes
        if len(readers) > 1:
            inverses.append(Node("permute_dims", (move.output,), (value,), {"axes": inverse(axes)}))
    return (*inverses, *nodes), new_inputs, orders
