"""An optimizer's rule: what it is, and what it says of a parameter's true shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import prod

from harness.program.builder import Builder
from harness.program.dims import ONE, Dim, Shape
from harness.program.ir import Meaning, Node, Port, Type

# Loss scaling: what keeps gradients within float16's range, as a part of a program.
#
# The loss is multiplied by a scale before it is differentiated, and gradients are divided by it
# afterwards, in float32. A step whose gradients are not all finite is left out, and the scale
# halved; after so many steps in a row that were not, it is doubled (Micikevicius et al. 2018,
# "Mixed precision training", section 3.2). The scale is a power of two, so that it rounds nothing.

# The scale, and how many steps there were since it changed: carried from step to step.
SCALE, GOOD = "loss.scale", "loss.good"
# Beside them in a checkpoint: how many steps were not left out.
UPDATES = "updates"
# What they begin with, and the steps after which the scale is doubled.
FIRST, GROWS = 2.0**10, 2000
# A scale that was halved so often that it is no matter of range.
LEAST_SCALE = 2.0**-24
# Squares of gradients that sum up to more are no gradients.
MOST = 2.0**126


def guarded(
    builder: Builder,
    gradients: Mapping[str, int],
    before: Mapping[str, int],
    made: Mapping[str, int],
) -> dict[str, int]:
    """What a step leaves, by the names of ``made``, with :data:`SCALE` and :data:`GOOD`: ``made``
    where all ``gradients`` are finite, else ``before``, which has the names of both."""
    total = builder.constant(0.0)
    for gradient in gradients.values():
        square = builder.emit("multiply", gradient, gradient)
        if axes := tuple(range(len(builder.types[square].shape))):
            square = builder.emit("sum", square, axis=axes, keepdims=False)
        total = builder.emit("add", total, square)
    finite = builder.emit("less", total, builder.constant(MOST))
    scale, good = before[SCALE], before[GOOD]
    zero, half, two = map(builder.constant, (0.0, 0.5, 2.0))
    more = builder.emit("add", good, builder.constant(1.0))
    grows = builder.emit("equal", more, builder.constant(float(GROWS)))
    after = {
        **made,
        SCALE: builder.emit("where", grows, builder.emit("multiply", scale, two), scale),
        GOOD: builder.emit("where", grows, zero, more),
    }
    instead = {**before, SCALE: builder.emit("multiply", scale, half), GOOD: zero}
    return {n: builder.emit("where", finite, v, instead[n]) for n, v in after.items()}


# Every parameter in turn as one row of entries; and one of two axes as it is.
ENTRIES = Type((Dim.of("entries"),))
MATRIX = Type((Dim.of("rows"), Dim.of("columns")))
# What makes one number of all entries: at a tensor of several parameters it is another number.
REDUCING = frozenset({"sum", "max", "extent"})


@dataclass(frozen=True, slots=True)
class Total:
    """A number of the whole model: ``part`` of every parameter, added up, is ``value``.

    ``nodes`` are those that the part is made by, beyond those of the totals before it.
    """

    name: str
    nodes: tuple[Node, ...]
    part: int
    value: int


@dataclass(frozen=True)
class UpdateRule:
    """One step of an optimizer, as if every parameter were one row of entries.

    In: ``parameter``, ``gradient``, the scalars ``step`` (from 1) and ``learning_rate``, and the
    ``slots``; a slot's ``init`` says how it starts, zeros where it says nothing. Out:
    ``new_parameter`` and ``new_slots``. A reduction over axis 0 is one over all axes of the
    parameter, see :func:`at_shape`.

    Attributes:
        totals: Sums over the whole model, in the order in which they are made, before ``nodes``.
        rate: The learning rate that the definition reads, where the model has a schedule.
        fed: The gradient that the definition reads, where the model makes another of it.
        varying: The attributes that are another number at each step.
        groups: The rules of some parameters, by pattern of their names: see :meth:`of`.
        added: The slots that a model adds to those of the definition.
        matrices: The rule of parameters of two axes, ``[rows, columns]`` as they are; its slots may
            have shapes of their own.
    """

    name: str
    attributes: Mapping[str, float]
    types: Mapping[int, Type]
    nodes: tuple[Node, ...]
    parameter: int
    gradient: int
    step: int
    learning_rate: int
    slots: tuple[Port, ...]
    new_parameter: int
    new_slots: tuple[Port, ...]
    meaning: Meaning | None = None
    totals: tuple[Total, ...] = ()
    rate: int | None = None
    fed: int | None = None
    varying: tuple[str, ...] = ()
    groups: Mapping[str, UpdateRule] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    matrices: UpdateRule | None = None

    def by_meaning(self) -> UpdateRule:
        """The same rule, under the name by which backends know it."""
        return self if self.meaning is None else replace(self, name=self.meaning.name)

    def of(self, parameter: str, rank: int) -> UpdateRule:
        """The rule of a parameter with that many axes: that of the first pattern that its name
        has, or this one; of either, that of matrices where it is one."""
        named = (rule for pattern, rule in self.groups.items() if fnmatchcase(parameter, pattern))
        found = next(named, self)
        return found if found.matrices is None or rank != 2 else found.matrices

    @property
    def every_rule(self) -> Iterator[UpdateRule]:
        """This one and those of groups, each with that of matrices."""
        for rule in (self, *self.groups.values()):
            yield rule
            if rule.matrices is not None:
                yield rule.matrices

    @property
    def every_slot(self) -> tuple[Port, ...]:
        """The slots of which any parameter has one, by name once."""
        return tuple({port.name: port for rule in self.every_rule for port in rule.slots}.values())

    @property
    def own_nodes(self) -> tuple[Node, ...]:
        """Those of the totals and of the update."""
        return (*(node for total in self.totals for node in total.nodes), *self.nodes)

    @property
    def every_node(self) -> tuple[Node, ...]:
        """Those of all groups and of matrices too."""
        return tuple(node for rule in self.every_rule for node in rule.own_nodes)


def by_rank(rule: UpdateRule) -> bool:
    """Whether a parameter of two axes has another rule, with slots of its own, than others."""
    return any(one.matrices is not None for one in rule.every_rule)


def by_parameter(rule: UpdateRule) -> bool:
    """Whether it matters which entries are those of one parameter.

    Where it does not, the rule holds for a tensor into which a framework has packed several.
    """
    sums = {total.part for total in rule.totals}
    made = (node.op for node in rule.own_nodes if sums.isdisjoint(node.outputs))
    return bool(rule.groups) or by_rank(rule) or not REDUCING.isdisjoint(made)


def at_shape(
    rule: UpdateRule, nodes: Iterable[Node], shape: Sequence[Dim | int]
) -> tuple[Node, ...]:
    """Some nodes of a rule for a parameter of that shape.

    Of entries, a reduction goes over all axes; of matrices, how many rows and columns there are is
    put in.
    """
    return tuple(_at(rule, node, shape) if node.op in REDUCING else node for node in nodes)


def _at(rule: UpdateRule, node: Node, shape: Sequence[Dim | int]) -> Node:
    of_matrices = rule.types[rule.parameter] == MATRIX
    if node.op == "extent":
        dims: Shape = node.attributes["dims"]
        if of_matrices:
            return replace(node, attributes={"dims": _known(dims, shape)})
        return replace(node, attributes={"dims": tuple(map(Dim.of, shape)) if dims else ()})
    if of_matrices or not rule.types[node.inputs[0]].shape:
        return node
    return replace(node, attributes={**node.attributes, "axis": tuple(range(len(shape)))})


def _known(dims: Shape, shape: Sequence[Dim | int]) -> Shape:
    """Dimensions with those of a matrix put in."""
    names = [name for dim in MATRIX.shape for name in dim.names]
    known = dict(zip(names, map(Dim.of, shape), strict=True))
    return tuple(dim.substitute(known) for dim in dims)


def type_at(rule: UpdateRule, value: int, shape: Shape) -> Type:
    """The type of a rule's value at a parameter of that shape."""
    type_ = rule.types[value]
    if not type_.shape:
        return type_
    if rule.types[rule.parameter] == MATRIX:
        return replace(type_, shape=_known(type_.shape, shape))
    return replace(type_, shape=(ONE,) * len(shape) if type_.shape == (ONE,) else shape)


def slot_entries(rule: UpdateRule, parameters: Mapping[str, Sequence[int]]) -> int:
    """How many numbers an optimizer keeps for parameters of those shapes."""
    kept = slot_shapes(rule, parameters).values()
    return sum(prod(shape) for shapes in kept for shape in shapes.values())


def slot_shapes(
    rule: UpdateRule, parameters: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shape of every slot, by slot and parameter, of the parameters' shapes; a slot that no
    parameter has is left out."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in parameters.items():
        own, dims = rule.of(name, len(shape)), tuple(map(Dim.of, shape))
        for slot in own.slots:
            made = type_at(own, slot.value, dims).shape
            found.setdefault(slot.name, {})[name] = tuple(dim.resolve({}) for dim in made)
    return found
