"""The program: a model's equations as an immutable list of operations with typed values.

Nodes are operations that read and write numbered values. Two operations have a body, which is a
list of nodes that may also read values from outside the body. ``scan`` is a loop over time.
``call`` is a layer or a loss: its body holds the equations, and a backend may run its own kernel
instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from harness.program.dims import Attributes, Dim, Shape, check_shape, shape_text

Kind = Literal["float", "index", "bool"]
Phase = Literal["training", "inference"]
T = TypeVar("T")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Type:
    """The shape and the kind of entries of a value. In an index array, all entries must be less
    than ``bound``."""

    shape: Shape
    kind: Kind = "float"
    bound: Dim | None = None

    def __post_init__(self) -> None:
        check_shape(self.shape)

    def __str__(self) -> str:
        return (
            shape_text(self.shape)
            if self.kind == "float"
            else f"{self.kind} {shape_text(self.shape)}"
        )


@dataclass(frozen=True, slots=True)
class Block:
    """The body of a loop or call: its nodes in order. The loop or call sets the values ``inputs``
    before the nodes run, and reads the values ``outputs`` afterwards."""

    inputs: tuple[int, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """An operation ``outputs = op(inputs, **attributes)``. Inputs and outputs are value numbers:
    integers that identify the values of a program.

    ``body`` has the nodes of a loop or call. ``place`` is the position of the equation in the spec,
    e.g. ``gru.yaml:12``.
    """

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: Attributes = field(default_factory=dict)
    body: Block | None = None
    place: str = ""

    @property
    def output(self) -> int:
        """The number of the output value of a node with a single output."""
        (only,) = self.outputs
        return only

    @property
    def block(self) -> Block:
        """The body of a scan or of a call."""
        assert self.body is not None
        return self.body

    @property
    def carries(self) -> int:
        """How many of a scan's inputs are carried from step to step. These come first in
        ``inputs``; the inputs after them are sequences."""
        count: int = self.attributes["carries"]
        return count

    @property
    def reverse(self) -> bool:
        """True if a scan runs from the last step to the first."""
        return bool(self.attributes["reverse"])


@dataclass(frozen=True, slots=True)
class Meaning:
    """The identity of a definition (e.g. a layer), by which a backend finds its own implementation
    of the definition. It does not depend on the name that the spec gives to the definition.

    Attributes:
        name: The name of the shipped definition with the same equations, e.g. ``lstm``. If there is
            none, the name of this definition. If a shipped definition with this name has different
            equations, the checksum is added, e.g. ``lstm@0f3a...``.
        checksum: The checksum of the equations, and of all definitions that they call.
        functions: Maps each attribute whose value is a function to the function's name, which is
            chosen like ``name``.
    """

    name: str
    checksum: str
    functions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Port:
    """A named input or output of a program. ``value`` is its value number. ``init`` describes the
    initial values of a state, or the distribution of a parameter."""

    name: str
    value: int
    init: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Composite:
    """A call of a layer that has nested layers, whose equations are nodes of the program.

    ``inputs`` and ``outputs`` map the names of the layer's inputs and outputs to values. ``sizes``
    has the sizes of the definition. The names of the nested layers start with ``instance`` and a
    dot.
    """

    instance: str
    label: str
    definition: str
    attributes: Mapping[str, Any]
    sizes: Mapping[str, Dim]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Program:
    """The operations of a model in one ``phase`` (training or inference).

    The program reads ``inputs``, ``targets``, ``state``, ``statistics`` and ``parameters``. It
    returns ``outputs``, ``new_state``, ``new_statistics``, ``loss`` and ``metrics``. State is
    carried from batch to batch and can be reset to its initial value; statistics (moving means) are
    never reset. Among the statistics are also constants, for which there are no new statistics.

    ``types`` and ``names`` map value numbers to types and names. ``sizes`` maps the name of every
    size to its number, except for batch and time: the shapes of the arrays decide these two.
    ``structural`` lists the sizes that determine the number of layers; if such a size changes, a
    new program is needed. ``room`` has symbolic dimensions that must be at least 0 at the sizes of
    the arrays. If such a dimension is negative, a slice or a window reaches beyond the end of its
    axis.

    ``composites`` has the calls of layers that have nested layers; an inner call comes before the
    call that contains it.
    """

    name: str
    phase: Phase
    sizes: Mapping[str, int]
    types: Mapping[int, Type]
    names: Mapping[int, str]
    nodes: tuple[Node, ...]
    inputs: tuple[Port, ...]
    targets: tuple[Port, ...]
    state: tuple[Port, ...]
    statistics: tuple[Port, ...]
    parameters: tuple[Port, ...]
    outputs: tuple[Port, ...]
    new_state: tuple[Port, ...]
    new_statistics: tuple[Port, ...]
    loss: int | None = None
    metrics: tuple[Port, ...] = ()
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    structural: tuple[str, ...] = ()
    room: tuple[Dim, ...] = ()
    composites: tuple[Composite, ...] = ()

    def type_of(self, port: Port) -> Type:
        """Return the type of a port's value."""
        return self.types[port.value]

    def shape(self, port: Port, sizes: Mapping[str, int] | None = None) -> tuple[int, ...]:
        """Return the shape of a port as numbers. ``sizes`` has the sizes that the arrays decide,
        e.g. ``{"batch": 8, "time": 20}``."""
        all_sizes = {**self.sizes, **(sizes or {})}
        return tuple(dim.resolve(all_sizes) for dim in self.type_of(port).shape)

    @property
    def calls(self) -> tuple[Node, ...]:
        """The call nodes of the program, in order; each calls a layer or a loss."""
        return tuple(node for node in self.nodes if node.op == "call")

    def with_sizes(self, /, **sizes: int) -> Program:
        """Return the same program with different numbers for some sizes."""
        return replace(self, sizes={**self.sizes, **sizes})


def walk_nodes(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yield all nodes, including the nodes inside bodies."""
    for node in nodes:
        yield node
        if node.body is not None:
            yield from walk_nodes(node.body.nodes)


def inline_calls(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Return the nodes with every call of a layer or loss replaced by the nodes in its body."""
    flat: list[Node] = []
    for node in nodes:
        if node.op == "call":
            flat.extend(inline_calls(node.block.nodes))
        else:
            flat.append(node)
    return tuple(flat)


def free_values(block: Block) -> tuple[int, ...]:
    """Return the values (as numbers) from outside a block that its nodes read, in order of first
    use."""
    defined = set(block.inputs)
    free: dict[int, None] = {}
    for node in block.nodes:
        used = list(node.inputs)
        if node.body is not None:
            used.extend(free_values(node.body))
        for value in used:
            if value not in defined:
                free[value] = None
        defined.update(node.outputs)
    for value in block.outputs:
        if value not in defined:
            free[value] = None
    return tuple(free)


def reads(node: Node) -> tuple[int, ...]:
    """Return all values that a node reads: its inputs, and the outer values that its body reads."""
    return (*node.inputs, *free_values(node.body)) if node.body is not None else node.inputs


def needed(
    items: Iterable[T],
    results: Iterable[V],
    writes: Callable[[T], Iterable[V]],
    reads: Callable[[T], Iterable[V]],
    narrowed: Callable[[T, set[V]], T] | None = None,
) -> tuple[T, ...]:
    """Eliminate dead code: return only the items on which the values ``results`` depend.

    ``writes`` and ``reads`` return the values that an item writes and reads. ``narrowed(item,
    values)`` returns an item, e.g. a loop, without the parts that none of ``values`` needs.
    """
    live = set(results)
    kept_items: list[T] = []
    for item in reversed(tuple(items)):
        if live.isdisjoint(writes(item)):
            continue
        if narrowed is not None:
            item = narrowed(item, live)
        kept_items.append(item)
        live.update(reads(item))
    return tuple(reversed(kept_items))


def needed_nodes(nodes: Iterable[Node], results: Iterable[int]) -> tuple[Node, ...]:
    """Eliminate dead code: return the nodes on which the values ``results`` depend. A needed loop
    stays complete."""
    return needed(nodes, results, lambda node: node.outputs, reads)
