"""Update rules of optimizers, and functions that apply them to parameters of any shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import prod

from harness.program.builder import Builder
from harness.program.dims import ONE, Dim, Shape
from harness.program.ir import Meaning, Node, Port, Type

# Loss scaling, which keeps gradients within the range of float16.
#
# The loss is multiplied by a scale before it is differentiated, and the gradients are divided by
# the scale in float32. If a gradient is not finite, the step is skipped and the scale is halved.
# After GROWS steps in a row with finite gradients, the scale is doubled (Micikevicius et al. 2018,
# "Mixed precision training", section 3.2). The scale is a power of two, so it causes no rounding.

# The names of two values that are carried from step to step: the scale, and the number of steps
# since the scale changed.
SCALE, GOOD = "loss.scale", "loss.good"
# The name of a number in checkpoints: the number of steps that were not skipped.
UPDATES = "updates"
# The initial scale, and the number of steps after which the scale is doubled.
FIRST, GROWS = 2.0**10, 2000
# If the scale is below this, the range of float16 cannot be the reason for infinite gradients.
LEAST_SCALE = 2.0**-24
# Gradients are treated as not finite if their sum of squares is at least this.
MOST = 2.0**126


def with_loss_scaling(
    builder: Builder,
    gradients: Mapping[str, int],
    before: Mapping[str, int],
    new_values: Mapping[str, int],
) -> dict[str, int]:
    """Return the values after a step with loss scaling, as a dictionary from name to value number:
    ``new_values`` if all gradients are finite, otherwise the values ``before`` the step. The result
    also has the next scale (:data:`SCALE`) and the next number of steps since the scale changed
    (:data:`GOOD`)."""
    total = builder.constant(0.0)
    for gradient in gradients.values():
        square = builder.emit("multiply", gradient, gradient)
        if axes := tuple(range(len(builder.types[square].shape))):
            square = builder.emit("sum", square, axis=axes, keepdims=False)
        total = builder.emit("add", total, square)
    finite = builder.emit("less", total, builder.constant(MOST))
    scale, good = before[SCALE], before[GOOD]
    zero, half, two = map(builder.constant, (0.0, 0.5, 2.0))
    good_steps = builder.emit("add", good, builder.constant(1.0))
    grows = builder.emit("equal", good_steps, builder.constant(float(GROWS)))
    after = {
        **new_values,
        SCALE: builder.emit("where", grows, builder.emit("multiply", scale, two), scale),
        GOOD: builder.emit("where", grows, zero, good_steps),
    }
    skipped = {**before, SCALE: builder.emit("multiply", scale, half), GOOD: zero}
    return {n: builder.emit("where", finite, v, skipped[n]) for n, v in after.items()}


# The types of a parameter in update rules: one row of entries, or a matrix with two axes.
ENTRIES = Type((Dim.of("entries"),))
MATRIX = Type((Dim.of("rows"), Dim.of("columns")))
# Operations that compute one number from all entries of a parameter. The number is wrong if a
# tensor packs several parameters.
REDUCING = frozenset({"sum", "max", "extent"})


@dataclass(frozen=True, slots=True)
class Total:
    """A sum over all parameters that an optimizer reads, e.g. the sum of all squared gradients.

    ``nodes`` compute the value ``part``, the term of one parameter; these nodes may read sums that
    come earlier in the list. ``value`` is the sum of the terms of all parameters.
    """

    name: str
    nodes: tuple[Node, ...]
    part: int
    value: int


@dataclass(frozen=True)
class UpdateRule:
    """The operations with which an optimizer updates one parameter. The rule is written for a
    vector.

    Inputs are ``parameter``, ``gradient``, the scalars ``step`` (from 1) and ``learning_rate``, and
    the ``slots`` (e.g. the moments of Adam). The ``init`` of a slot has its initial values, zeros
    by default. Outputs are ``new_parameter`` and ``new_slots``. For a parameter with several axes,
    :func:`at_shape` turns a reduction over axis 0 into a reduction over all axes.

    Attributes:
        meaning: The identity by which backends recognise the optimizer, e.g. as ``adam``.
        totals: Sums over all parameters, in order of computation. ``nodes`` run after these sums.
        rate: The value that is the learning rate of a step, if the model has a schedule.
        fed: The value that the optimizer reads as gradient, if the model changes the gradient, e.g.
            by clipping.
        varying: The names of attributes whose number differs from step to step.
        groups: Maps a pattern of parameter names to the rule of these parameters: see :meth:`of`.
        added: The names of slots that the model defines in addition to those of the optimizer.
        matrices: The rule for parameters with two axes, ``[rows, columns]``; its slots may have
            different shapes.
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
        """Return the same rule under a different name: the name of the shipped optimizer with the
        same equations, by which backends recognise the rule."""
        return self if self.meaning is None else replace(self, name=self.meaning.name)

    def of(self, parameter: str, rank: int) -> UpdateRule:
        """Return the rule for a parameter with ``rank`` axes: the first rule in ``groups`` whose
        pattern matches the name, otherwise this rule. For two axes, the result is the ``matrices``
        of this rule, if there is one."""
        matching = (
            rule for pattern, rule in self.groups.items() if fnmatchcase(parameter, pattern)
        )
        chosen = next(matching, self)
        return chosen if chosen.matrices is None or rank != 2 else chosen.matrices

    @property
    def every_rule(self) -> Iterator[UpdateRule]:
        """An iterator over this rule and the rules in ``groups``. Each rule is followed by its
        ``matrices`` (the rule for parameters with two axes), if there is one."""
        for rule in (self, *self.groups.values()):
            yield rule
            if rule.matrices is not None:
                yield rule.matrices

    @property
    def every_slot(self) -> tuple[Port, ...]:
        """The slots of this rule, of the rules in its groups, and of the rules for matrices; each
        name occurs once."""
        return tuple({port.name: port for rule in self.every_rule for port in rule.slots}.values())

    @property
    def own_nodes(self) -> tuple[Node, ...]:
        """The nodes of this rule, without those of ``groups`` and ``matrices``. The nodes compute
        the sums over all parameters and the update."""
        return (*(node for total in self.totals for node in total.nodes), *self.nodes)

    @property
    def every_node(self) -> tuple[Node, ...]:
        """The nodes of this rule, of the rules in ``groups``, and of the rules for matrices."""
        return tuple(node for rule in self.every_rule for node in rule.own_nodes)


def by_rank(rule: UpdateRule) -> bool:
    """Return whether the optimizer has a different rule for parameters with two axes."""
    return any(each.matrices is not None for each in rule.every_rule)


def by_parameter(rule: UpdateRule) -> bool:
    """Return whether the update of an entry depends on more than the gradient and the slots at this
    entry: on the parameter's name, its number of axes, or its other entries (e.g. through a norm).

    If the result is false, the rule can also update a tensor into which a framework packs several
    parameters.
    """
    sums = {total.part for total in rule.totals}
    ops = (node.op for node in rule.own_nodes if sums.isdisjoint(node.outputs))
    return bool(rule.groups) or by_rank(rule) or not REDUCING.isdisjoint(ops)


def at_shape(
    rule: UpdateRule, nodes: Iterable[Node], shape: Sequence[Dim | int]
) -> tuple[Node, ...]:
    """Return nodes of a rule, adapted to a parameter with ``shape``. A reduction over a vector
    becomes a reduction over all axes. For matrices, the sizes of rows and columns become numbers.
    """
    return tuple(_adapt_node(rule, node, shape) if node.op in REDUCING else node for node in nodes)


def _adapt_node(rule: UpdateRule, node: Node, shape: Sequence[Dim | int]) -> Node:
    of_matrices = rule.types[rule.parameter] == MATRIX
    if node.op == "extent":
        dims: Shape = node.attributes["dims"]
        if of_matrices:
            return replace(node, attributes={"dims": _with_numbers(dims, shape)})
        return replace(node, attributes={"dims": tuple(map(Dim.of, shape)) if dims else ()})
    if of_matrices or not rule.types[node.inputs[0]].shape:
        return node
    return replace(node, attributes={**node.attributes, "axis": tuple(range(len(shape)))})


def _with_numbers(dims: Shape, shape: Sequence[Dim | int]) -> Shape:
    """Replace the symbolic sizes of rows and columns in ``dims`` by numbers: those in ``shape``,
    the shape of a matrix."""
    names = [name for dim in MATRIX.shape for name in dim.names]
    numbers = dict(zip(names, map(Dim.of, shape), strict=True))
    return tuple(dim.substitute(numbers) for dim in dims)


def type_at(rule: UpdateRule, value: int, shape: Shape) -> Type:
    """Return the type that the value ``value`` of a rule has if the rule updates a parameter with
    ``shape``."""
    type_ = rule.types[value]
    if not type_.shape:
        return type_
    if rule.types[rule.parameter] == MATRIX:
        return replace(type_, shape=_with_numbers(type_.shape, shape))
    return replace(type_, shape=(ONE,) * len(shape) if type_.shape == (ONE,) else shape)


def slot_entries(rule: UpdateRule, parameters: Mapping[str, Sequence[int]]) -> int:
    """Return how many entries all slots of an optimizer have together, e.g. the moments of Adam.
    ``parameters`` maps a parameter's name to its shape."""
    slots = slot_shapes(rule, parameters).values()
    return sum(prod(shape) for shapes in slots for shape in shapes.values())


def slot_shapes(
    rule: UpdateRule, parameters: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shapes of all slots: slot name -> parameter name -> shape. A parameter is missing
    if its rule does not have the slot. ``parameters`` maps a parameter's name to its shape."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in parameters.items():
        own_rule, dims = rule.of(name, len(shape)), tuple(map(Dim.of, shape))
        for slot in own_rule.slots:
            slot_shape = type_at(own_rule, slot.value, dims).shape
            shapes.setdefault(slot.name, {})[name] = tuple(dim.resolve({}) for dim in slot_shape)
    return shapes
