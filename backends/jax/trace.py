"""Translate the values of a jaxpr into a neutral graph, with layers where it is possible.

:mod:`harness.runtime.own_model.graph` defines the operators of the graph. A rule translates a
value: :mod:`.trace_layers`, :mod:`.trace_products`, :mod:`.trace_rules` and :mod:`.trace_loops`
register rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.extend.models import GraphBuilder, Operand

from .jaxprs import Value, alone, needed

# A value that a node needs, or a number.
Needed = Value | int | float | bool
# Adds nodes for a value; its arguments are the builder, the operands and GraphBuilder.add's others.
Emit = Callable[[GraphBuilder, list[Operand], dict[str, Any]], Operand]


@dataclass(frozen=True)
class NodePlan:
    """The translation of a value: the values that it needs, and a function that adds its nodes."""

    needs: tuple[Needed, ...]
    emit: Emit
    layer: RecognisedLayer | None = None


class JaxTranslation:
    """The translation of traced values into a graph.

    Args:
        builder: The graph.
        results: The values that the graph must compute.
        momentum: The momentum of each batch norm, by the path of its module; None if it uses its
            moving statistics also in training mode.
        layers: Whether to recognise layers; a step of a loop has operators only.
        dropout: Whether the graph has dropout.
    """

    def __init__(
        self,
        builder: GraphBuilder,
        results: Sequence[Value],
        momentum: Mapping[str, float | None],
        layers: bool = True,
        dropout: bool = True,
    ) -> None:
        self.builder, self.momentum = builder, momentum
        self.layers, self.dropout = layers, dropout
        self.used = needed(results)
        self.weights = {v.name for v in self.used if v.op == "weight"}
        self.operands: dict[Value, Operand] = {}
        # The node of each loop and result: the last state and the states of all steps share one.
        self.loops: dict[tuple[int, str], Operand] = {}
        self.plan: dict[Value, NodePlan] = {}
        # Parts of weights that have several uses, so that no layer can own them.
        self.barred: set[str] = set()
        while True:
            self._plan(results)
            conflicts = self._conflicts() - self.barred
            if not conflicts:
                break
            self.barred |= conflicts

    def _plan(self, results: Sequence[Value]) -> None:
        self.plan = {}
        waiting = list(results)
        while waiting:
            value = waiting.pop()
            if value in self.plan:
                continue
            self.plan[value] = match = self.match(value)
            waiting += [v for v in match.needs if isinstance(v, Value)]

    def _conflicts(self) -> set[str]:
        """Return the parts of weights that belong to several layers, or to a layer and to an
        operator. A table of an embedding may also be a transposed dense layer."""
        roles: dict[str, set[str]] = {}
        for match in self.plan.values():
            if match.layer is not None:
                own = match.layer.roles()
                for part, role in own:
                    twice = sum(part == other for other, _ in own) > 1
                    roles.setdefault(part, set()).update([role, "twice"] if twice else [role])
            else:
                for need in match.needs:
                    if isinstance(need, Value) and need.op == "weight":
                        roles.setdefault(need.name, set()).add("operator")
        whole = {part.partition("[")[0] for part in roles if "[" in part} & set(roles)
        return whole | {part for part, part_roles in roles.items() if len(part_roles) > 1}

    def owner_of(self, names: Sequence[str]) -> str:
        """Return the module that owns weights: the start of their names, if no other weights have
        it, else the name of the first."""
        if not names:
            return ""
        prefix = names[0].rpartition(".")[0]
        siblings = [n for n in self.weights if n.rpartition(".")[0] == prefix]
        return prefix if prefix and len(siblings) <= len(names) else names[0]

    def emit(self, ordered: Sequence[Value]) -> None:
        """Add the nodes of all planned values, in the order of execution."""
        for value in [v for v in self.plan if not v.order] + list(ordered):
            if value not in self.plan or value in self.operands:
                continue
            match = self.plan[value]
            operands = [self.operands[n] if isinstance(n, Value) else n for n in match.needs]
            self.operands[value] = match.emit(self.builder, operands, about_of(value))

    def match(self, value: Value) -> NodePlan:
        """Return the translation of a value: the first rule that applies."""
        if not value.inputs and value.op in LEAVES:
            return LEAVES[value.op](value)
        if value.op in ("constant", "iota") and value.number is not None:
            return node("constant")
        names = ("*", value.op) if value.number is None else (value.op,)
        for translate in (rule for name in names for rule in RULES.get(name, ())):
            match = translate(self, value)
            if match is not None:
                return match
        if value.number is not None:
            return node("constant")
        draws = value.op.startswith(("random", "threefry"))
        attributes = {"operator": value.op, "reason": "random numbers" if draws else ""}
        return node("unsupported", *value.inputs, **attributes)

    def alone(self, value: Value) -> bool:
        """Return whether only one used value uses a value."""
        return alone(value, self.used)


def about_of(value: Value) -> dict[str, Any]:
    """Return shape, kind, modules, place and numbers, as :meth:`GraphBuilder.add` takes them."""
    return {
        "shape": value.shape,
        "kind": value.kind,
        "modules": value.modules,
        "place": value.place,
        "values": value.number,
    }


def node(op: str, *needs: Needed, **attributes: Any) -> NodePlan:
    """Return a translation into one node."""
    return NodePlan(needs, lambda g, operands, about: g.add(op, operands, attributes, **about))


@dataclass(frozen=True)
class RecognisedLayer:
    """A call of a shipped layer.

    Attributes:
        layer: The name of the layer.
        x: The input.
        settings: The layer's attributes.
        weights: The weight of each parameter, and the end of its ``--map`` rule.
        before: The shape to which the input is reshaped; None if it keeps its shape.
        after: The shape of the layer's result; None for the value's own shape.
    """

    layer: str
    x: Value
    settings: Mapping[str, Any]
    weights: Mapping[str, tuple[Value, str]]
    before: tuple[int, ...] | None = None
    after: tuple[int, ...] | None = None

    def match(self, t: JaxTranslation) -> NodePlan | None:
        """Return the translation; None in a loop, or if a weight also has another use."""
        parts = {p for w, end in self.weights.values() for p in (w.name, self._part(w, end))}
        if not t.layers or parts & t.barred:
            return None
        owner = t.owner_of([w.name for w, _ in self.weights.values()])
        ends = [end for _, end in self.weights.values()]
        if "[" in "".join(ends):
            owner = re.sub(r"\W+", ".", next(iter(self.weights.values()))[0].name + ends[0])

        def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
            source = o[0] if self.before is None else reshape(g, o[0], self.before, about)
            weights = dict(zip(self.weights, zip(o[1:], ends, strict=True), strict=True))
            more = about if self.after is None else {**about, "shape": self.after}
            result = g.layer(self.layer, [source], self.settings, weights, more)
            if owner:
                g.graph["nodes"][-1]["attributes"]["owner"] = owner.rstrip(".")
            return reshape(g, result, about["shape"], about)

        return NodePlan((self.x, *(w for w, _ in self.weights.values())), emit, self)

    def _part(self, weight: Value, end: str) -> str:
        return weight.name + end.partition("]")[0]

    def roles(self) -> list[tuple[str, str]]:
        """Return the part of each weight, and its role: the layer, its parameter and the turn."""
        roles = []
        all_weights = sorted(w.name + end for w, end in self.weights.values())
        for parameter, (weight, end) in self.weights.items():
            tied = self.layer.startswith("dense") and end == ".T"
            role = "table" if self.layer == "embedding" or tied else f"{self.layer} {all_weights}"
            roles.append((self._part(weight, end), f"{role} {parameter if not tied else 'table'}"))
        return roles


LEAVES: Mapping[str, Callable[[Value], NodePlan]] = {
    "input": lambda v: node("input", name=v.name),
    "weight": lambda v: node("weight", name=v.name),
}
Rule = Callable[[JaxTranslation, Value], NodePlan | None]
RULES: dict[str, list[Rule]] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for primitives; ``*`` stands for every primitive."""

    def register(rule: Rule) -> Rule:
        for name in names:
            RULES.setdefault(name, []).append(rule)
        return rule

    return register


def reshape(g: GraphBuilder, operand: Operand, shape: Sequence[int], about: Any) -> Operand:
    """Add a reshape, unless the operand has this shape."""
    if g.shape_of(operand) == tuple(shape):
        return operand
    return g.add("reshape", [operand], {}, **{**about, "shape": tuple(shape), "values": None})


def permute(g: GraphBuilder, operand: Operand, axes: Sequence[int], about: Any) -> Operand:
    """Add a permutation of axes, unless it changes nothing."""
    if list(axes) == list(range(len(axes))):
        return operand
    shape = tuple(g.shape_of(operand)[a] for a in axes)
    more = {**about, "shape": shape, "values": None}
    return g.add("permute", [operand], {"axes": list(axes)}, **more)
