"""A plan: one whole step of a model, with every size known, as a backend runs it at speed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from harness.builder import Builder
from harness.gradient import differentiate
from harness.optimise import optimise
from harness.ports import crossing_ports, result_ports
from harness.program import (
    Node,
    Port,
    Program,
    Type,
    UpdateRule,
    inline_calls,
    needed_nodes,
    walk_nodes,
)


@dataclass(frozen=True)
class Plan:
    """Nodes without calls, and what crosses the border by name.

    ``inputs`` and ``outputs`` map names to values. ``carried`` maps the name of an output to that
    of the input that it replaces in the next step: the caller gives such an input away, so that it
    may be overwritten. ``sizes`` gives a number to every size, batch and time included.
    """

    name: str
    types: Mapping[int, Type]
    sizes: Mapping[str, int]
    dtype: str
    nodes: tuple[Node, ...]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    carried: Mapping[str, str]

    def shape(self, value: int) -> tuple[int, ...]:
        """The shape of a value, in numbers."""
        return tuple(dim.resolve(self.sizes) for dim in self.types[value].shape)


def forward_plan(
    program: Program, sizes: Mapping[str, int], dtype: str, fused: Iterable[str]
) -> Plan:
    """A forward pass: the outputs that nothing else uses, and the state."""
    builder = Builder(dict(program.types), dict(program.names))
    outputs = result_ports(program, "ends")
    nodes = inline_calls(needed_nodes(program.nodes, outputs.values()))
    nodes = optimise(nodes, outputs.values(), builder, sizes, fused)
    return _plan(program, builder, nodes, sizes, dtype, outputs, {})


def training_plan(
    program: Program,
    rule: UpdateRule,
    sizes: Mapping[str, int],
    dtype: str,
    fused: Iterable[str],
    *,
    learning_rate: float,
) -> Plan:
    """A training step: loss, gradient, update. Slots are named ``m.rnn.W``, as the rule has them.

    ``step`` comes in as a float, from 1, and goes out as that of the next step. The program is
    optimised before it is differentiated, so that the backward pass is that of the better
    program, and once more as a whole.
    """
    fused = tuple(fused)
    builder = Builder(dict(program.types), dict(program.names))
    results = result_ports(program, "step")
    nodes = inline_calls(needed_nodes(program.nodes, results.values()))
    nodes = optimise(nodes, results.values(), builder, sizes, fused, final=False)
    whole = replace(program, nodes=nodes, types=builder.types, names=builder.names)
    (loss,) = (Port(n, v) for n, v in results.items() if n == "loss")
    derivative = differentiate(whole, [loss], program.parameters, results.values(), fused)
    builder = Builder(dict(derivative.program.types), dict(derivative.program.names))
    (seed,) = derivative.seeds
    one = Node("constant", (), (seed.value,), {"value": 1.0})
    step = builder.value(Type(()), "step")
    gradients = {
        p.name: g.value for p, g in zip(program.parameters, derivative.gradients, strict=True)
    }
    slots, updated, nodes = _updates(program, rule, gradients, builder, step, learning_rate)
    results |= updated
    nodes = (one, *derivative.program.nodes, *nodes)
    nodes = optimise(nodes, results.values(), builder, sizes, fused)
    return _plan(program, builder, nodes, sizes, dtype, results, {**slots, "step": step})


def _updates(
    program: Program,
    rule: UpdateRule,
    gradients: Mapping[str, int],
    builder: Builder,
    step: int,
    learning_rate: float,
) -> tuple[dict[str, int], dict[str, int], tuple[Node, ...]]:
    """The slots that come in and what goes out, by name, and every parameter's update."""
    rate = builder.constant(learning_rate)
    after = builder.emit("add", step, builder.constant(1.0))
    slots: dict[str, int] = {}
    updated = {"step": after}
    for parameter in program.parameters:
        type_ = builder.types[parameter.value]
        env = {
            rule.parameter: parameter.value,
            rule.gradient: gradients[parameter.name],
            rule.step: step,
            rule.learning_rate: rate,
        }
        for slot in rule.slots:
            env[slot.value] = slots[f"{slot.name}.{parameter.name}"] = builder.value(type_)
        _copy(rule, env, builder, type_)
        updated[parameter.name] = env[rule.new_parameter]
        for slot in rule.new_slots:
            updated[f"{slot.name}.{parameter.name}"] = env[slot.value]
    return slots, updated, tuple(builder.nodes)


def _copy(rule: UpdateRule, env: dict[int, int], builder: Builder, parameter: Type) -> None:
    """Append a rule's nodes for one parameter, with values of their own."""
    wide = {rule.parameter, rule.gradient, *(slot.value for slot in rule.slots)}
    for node in rule.nodes:
        if wide.intersection(node.inputs):
            wide.update(node.outputs)
        for output in node.outputs:
            env[output] = builder.value(parameter if output in wide else Type(()))
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
    inputs = {name: value for name, value in inputs.items() if value in used}
    carried = {name: name for name in outputs if name in inputs}
    return Plan(program.name, builder.types, sizes, dtype, nodes, inputs, outputs, carried)
