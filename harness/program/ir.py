"""The program: a specification as immutable, typed, named values.

A program is a list of nodes over numbered values. Two ops have a body, which refers to outer values
by their numbers. ``scan`` is a loop over time. ``call`` is a layer or loss with its equations
inlined, so that a backend may run its own kernel instead.
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
    """Shape and element kind of a value. ``bound`` is the number of classes of an index."""

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
    """Nodes in order. ``inputs`` are bound by the op that owns the block."""

    inputs: tuple[int, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """An operation ``outputs = op(inputs, **attributes)``; ``place`` is its equation's
    ``file:line``."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: Attributes = field(default_factory=dict)
    body: Block | None = None
    place: str = ""

    @property
    def output(self) -> int:
        """The only output."""
        (only,) = self.outputs
        return only

    @property
    def block(self) -> Block:
        """The body of a scan or of a call."""
        assert self.body is not None
        return self.body

    @property
    def carries(self) -> int:
        """Number of inputs that a scan carries from step to step; the others are sequences."""
        count: int = self.attributes["carries"]
        return count

    @property
    def reverse(self) -> bool:
        """True if a scan goes from the last step to the first."""
        return bool(self.attributes["reverse"])


@dataclass(frozen=True, slots=True)
class Meaning:
    """The meaning of a definition, by which backends recognise it under any name.

    Attributes:
        name: The name of the shipped definition with this meaning; else the definition's own name,
            with the checksum if a different one ships under it: ``lstm@0f3a...``.
        checksum: The checksum of its equations as data, and of all that they call.
        functions: The names, formed alike, of the functions among its attributes, by attribute.
    """

    name: str
    checksum: str
    functions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Port:
    """A named value at the program's border, and how it is first filled."""

    name: str
    value: int
    init: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Program:
    """A model at one phase.

    ``inputs``, ``targets``, ``state``, ``statistics`` and ``parameters`` come in; ``outputs``,
    ``new_state``, ``new_statistics``, ``loss`` and ``metrics`` go out. State is carried from batch
    to batch and reset to its initial value; statistics (moving means) are never reset.

    ``sizes`` gives a number to every size name except those that the arrays decide. ``structural``
    names the sizes that decide how many layers there are; with a different number the program is
    different. ``room`` is what slices leave of axes whose lengths the arrays decide; none may be
    below 0.
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

    def type_of(self, port: Port) -> Type:
        """Return the type of a port's value."""
        return self.types[port.value]

    def shape(self, port: Port, sizes: Mapping[str, int] | None = None) -> tuple[int, ...]:
        """Return a port's shape in numbers; ``sizes`` gives the sizes that arrays decide."""
        known = {**self.sizes, **(sizes or {})}
        return tuple(dim.resolve(known) for dim in self.type_of(port).shape)

    @property
    def calls(self) -> tuple[Node, ...]:
        """The layer and loss calls, in order."""
        return tuple(node for node in self.nodes if node.op == "call")

    def with_sizes(self, /, **sizes: int) -> Program:
        """Return the same program at other sizes."""
        return replace(self, sizes={**self.sizes, **sizes})


def walk_nodes(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yield every node, including those inside bodies."""
    for node in nodes:
        yield node
        if node.body is not None:
            yield from walk_nodes(node.body.nodes)


def inline_calls(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Return the nodes with every call replaced by its body."""
    flat: list[Node] = []
    for node in nodes:
        if node.op == "call":
            flat.extend(inline_calls(node.block.nodes))
        else:
            flat.append(node)
    return tuple(flat)


def free_values(block: Block) -> tuple[int, ...]:
    """Return the outer values that a block refers to, in order of first use."""
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
    """Return the outer values that a node reads, including its body's."""
    return (*node.inputs, *free_values(node.body)) if node.body is not None else node.inputs


def needed(
    items: Iterable[T],
    wanted: Iterable[V],
    writes: Callable[[T], Iterable[V]],
    reads: Callable[[T], Iterable[V]],
    narrowed: Callable[[T, set[V]], T] | None = None,
) -> tuple[T, ...]:
    """Eliminate dead code: keep the items that write wanted values, or values that later ones read.
    ``narrowed(item, needed)`` returns an item without its parts that nothing needs."""
    live = set(wanted)
    kept: list[T] = []
    for item in reversed(tuple(items)):
        if live.isdisjoint(writes(item)):
            continue
        if narrowed is not None:
            item = narrowed(item, live)
        kept.append(item)
        live.update(reads(item))
    return tuple(reversed(kept))


def needed_nodes(nodes: Iterable[Node], wanted: Iterable[int]) -> tuple[Node, ...]:
    """Return the nodes that the wanted values depend on; loops stay whole."""
    return needed(nodes, wanted, lambda node: node.outputs, reads)
