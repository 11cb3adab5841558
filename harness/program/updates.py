"""Update rules of optimizers, and their form at the shape of a parameter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import prod

from harness.program.builder import Builder
from harness.program.dims import ONE, Dim, Shape
from harness.program.ir import Meaning, Node, Port, Type

# Loss scaling as part of a program: it keeps gradients within float16's range.
#
# The loss is multiplied by a scale before it is differentiated, and gradients are divided by the
# scale afterwards, in float32. If a gradient is not finite, the step is skipped and the scale
# halved. After GROWS finite steps in a row the scale is doubled (Micikevicius et al. 2018, "Mixed
# precision training", section 3.2). The scale is a power of two, so that it rounds nothing.

# The scale and the number of steps since it changed, carried from step to step.
SCALE, GOOD = "loss.scale", "loss.good"
# Also in a checkpoint: the number of steps that were not skipped.
UPDATES = "updates"
# The first scale, and the steps after which the scale is doubled.
FIRST, GROWS = 2.0**10, 2000
# A scale below this was halved so often that float16's range cannot be the cause.
LEAST_SCALE = 2.0**-24
# Gradients with a larger sum of squares count as not finite.
MOST = 2.0**126


def guarded(
    builder: Builder,
    gradients: Mapping[str, int],
    before: Mapping[str, int],
    made: Mapping[str, int],
) -> dict[str, int]:
    """Return the values after a step, with :data:`SCALE` and :data:`GOOD`. They are ``made`` if all
    ``gradients`` are finite. If not, they are ``before``, which has the names of both."""
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


# A parameter as one row of entries, and a parameter of two axes as it is.
ENTRIES = Type((Dim.of("entries"),))
MATRIX = Type((Dim.of("rows"), Dim.of("columns")))
# Operations that make one number of all entries: if a tensor packs several parameters, the number
# is different.
REDUCING = frozenset({"sum", "max", "extent"})


@dataclass(frozen=True, slots=True)
class Total:
    """A number of the whole model: ``part`` of every parameter, added up, is ``value``. ``nodes``
    make the part, beyond the nodes of earlier totals."""

    name: str
    nodes: tuple[Node, ...]
    part: int
    value: int


@dataclass(frozen=True)
class UpdateRule:
    """The step of an optimizer, as if every parameter were one row of entries.

    Inputs are ``parameter``, ``gradient``, the scalars ``step`` (from 1) and ``learning_rate``, and
    the ``slots``. A slot's ``init`` says how it starts, by default at zeros. Outputs are
    ``new_parameter`` and ``new_slots``. A reduction over axis 0 goes over all axes of the
    parameter, see :func:`at_shape`.

    Attributes:
        totals: Sums over the whole model, in the order in which they are made, before ``nodes``.
        rate: The learning rate that the definition reads, if the model has a schedule.
        fed: The gradient that the definition reads, if the model changes it.
        varying: The attributes with a different number at each step.
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
        """Return the same rule under the name by which backends know it."""
        return self if self.meaning is None else replace(self, name=self.meaning.name)

    def of(self, parameter: str, rank: int) -> UpdateRule:
        """Return the rule of a parameter with ``rank`` axes. It is the rule of the first pattern
        that matches the name, or this one. For two axes, its ``matrices`` come first."""
        named = (rule for pattern, rule in self.groups.items() if fnmatchcase(parameter, pattern))
        found = next(named, self)
        return found if found.matrices is None or rank != 2 else found.matrices

    @property
    def every_rule(self) -> Iterator[UpdateRule]:
        """This rule and the rules of groups, each followed by its rule of matrices."""
        for rule in (self, *self.groups.values()):
            yield rule
            if rule.matrices is not None:
                yield rule.matrices

    @property
    def every_slot(self) -> tuple[Port, ...]:
        """The slots of all rules, each name once."""
        return tuple({port.name: port for rule in self.every_rule for port in rule.slots}.values())

    @property
    def own_nodes(self) -> tuple[Node, ...]:
        """The nodes of the totals and of the update."""
        return (*(node for total in self.totals for node in total.nodes), *self.nodes)

    @property
    def every_node(self) -> tuple[Node, ...]:
        """The nodes of all groups and of matrices."""
        return tuple(node for rule in self.every_rule for node in rule.own_nodes)


def by_rank(rule: UpdateRule) -> bool:
    """Return whether parameters of two axes have a different rule, with its own slots."""
    return any(one.matrices is not None for one in rule.every_rule)


def by_parameter(rule: UpdateRule) -> bool:
    """Return whether it matters which entries belong to one parameter. If not, the rule also holds
    for a tensor into which a framework packs several parameters."""
    sums = {total.part for total in rule.totals}
    made = (node.op for node in rule.own_nodes if sums.isdisjoint(node.outputs))
    return bool(rule.groups) or by_rank(rule) or not REDUCING.isdisjoint(made)


def at_shape(
    rule: UpdateRule, nodes: Iterable[Node], shape: Sequence[Dim | int]
) -> tuple[Node, ...]:
    """Return some nodes of a rule for a parameter of that shape. In a rule of entries, a reduction
    goes over all axes. In a rule of matrices, the numbers of rows and columns are put in."""
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
    """Put the rows and columns of a matrix into dimensions."""
    names = [name for dim in MATRIX.shape for name in dim.names]
    known = dict(zip(names, map(Dim.of, shape), strict=True))
    return tuple(dim.substitute(known) for dim in dims)


def type_at(rule: UpdateRule, value: int, shape: Shape) -> Type:
    """Return the type of a rule's value at a parameter of that shape."""
    type_ = rule.types[value]
    if not type_.shape:
        return type_
    if rule.types[rule.parameter] == MATRIX:
        return replace(type_, shape=_known(type_.shape, shape))
    return replace(type_, shape=(ONE,) * len(shape) if type_.shape == (ONE,) else shape)


def slot_entries(rule: UpdateRule, parameters: Mapping[str, Sequence[int]]) -> int:
    """Count the numbers that an optimizer keeps for parameters of those shapes."""
    kept = slot_shapes(rule, parameters).values()
    return sum(prod(shape) for shapes in kept for shape in shapes.values())


def slot_shapes(
    rule: UpdateRule, parameters: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shape of every slot, by slot and parameter; unused slots are left out."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in parameters.items():
        own, dims = rule.of(name, len(shape)), tuple(map(Dim.of, shape))
        for slot in own.slots:
            made = type_at(own, slot.value, dims).shape
            found.setdefault(slot.name, {})[name] = tuple(dim.resolve({}) for dim in made)
    return found
