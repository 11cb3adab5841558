"""The neutral graph of a traced model, as plain data that a worker returns.

A backend's tracer translates its framework's operators to these:

- the operators, built-in functions and shipped functions of the spec language, e.g. ``+`` or
  ``gelu``, and ``negative``;
- ``layer`` calls a shipped layer (attribute ``layer``) with its weights;
- ``input``, ``weight`` and ``constant`` (an array that depends on no input);
- ``reshape``, ``broadcast`` and ``cast``, which lead to the node's own shape or kind;
- ``permute`` (``axes``), ``slice`` (``axis``, ``start``, ``stop``, ``step``), ``select`` (``axis``,
  ``index``), ``concat`` (``axis``), and ``gather`` (several index arrays for ``axes``);
- ``attention`` (query, key, value, and a mask), ``recurrent`` and its ``final_state``;
- ``unsupported``, an operator of the framework without a translation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from typing_extensions import TypedDict  # before Python 3.12 pydantic accepts no other

from harness.arrays import Array
from harness.runtime.answers import ConvertedBy, array_of_numbers

# An operand of a node: the name of another node, or a number.
Operand = str | int | float | bool
Attributes = dict[str, Any]
Numbers = Annotated[Array, ConvertedBy(array_of_numbers)]


class TracedNode(TypedDict):
    """A call in a traced model.

    ``modules`` holds the path and the class of each module around the call, outermost first.
    ``place`` is the user's line, e.g. ``net.py:41``. ``values`` are the numbers of a node that
    depends on no input, or None.
    """

    name: str
    op: str
    inputs: list[Operand]
    attributes: Attributes
    shape: list[int]
    kind: str
    modules: list[list[str]]
    place: str
    values: Numbers | None


class TracedGraph(TypedDict):
    """A traced model.

    ``label`` describes the model, e.g. ``torch.nn.Module Net``. ``remarks`` are sentences about
    parts of the model that the graph does not have. ``outputs`` holds the name and the
    node of each result. ``weights`` holds the shape of each array, and whether it is trained.
    """

    label: str
    remarks: list[str]
    nodes: list[TracedNode]
    outputs: list[list[str]]
    weights: dict[str, list[Any]]


class GraphBuilder:
    """A graph that a tracer builds node by node.

    Args:
        label: The model's description.
        weights: The shape of each of the model's arrays, and whether it is trained.
    """

    def __init__(self, label: str, weights: Mapping[str, tuple[Sequence[int], bool]]) -> None:
        arrays: dict[str, list[Any]] = {
            name: [[int(n) for n in shape], trained] for name, (shape, trained) in weights.items()
        }
        self.graph = TracedGraph(label=label, remarks=[], nodes=[], outputs=[], weights=arrays)
        self._nodes: dict[str, TracedNode] = {}

    def add(
        self,
        op: str,
        inputs: Sequence[Operand],
        attributes: Mapping[str, Any],
        *,
        shape: Sequence[int],
        kind: str = "float",
        modules: Sequence[tuple[str, str]] = (),
        place: str = "",
        values: Array | None = None,
    ) -> str:
        """Add a node and return its name."""
        name = f"v{len(self._nodes)}"
        node = TracedNode(
            name=name,
            op=op,
            inputs=list(inputs),
            attributes=dict(attributes),
            shape=[int(n) for n in shape],
            kind=kind,
            modules=[list(module) for module in modules],
            place=place,
            values=values,
        )
        self.graph["nodes"].append(node)
        self._nodes[name] = node
        return name

    def layer(
        self,
        layer: str,
        inputs: Sequence[Operand],
        attributes: Mapping[str, Any],
        weights: Mapping[str, tuple[Operand, str]],
        about: Mapping[str, Any],
        channels: int = -1,
    ) -> str:
        """Add a call of a shipped layer and return its name.

        Args:
            layer: The name of the layer's definition.
            inputs: The layer's inputs.
            attributes: The layer's attributes.
            weights: The parameter's name -> the weight's node, and the end of a ``--map`` rule that
                turns the weight into the parameter, e.g. ``.T``.
            about: The other arguments of :meth:`add`.
            channels: The axis of the channels, which is the last axis in the spec language.
        """
        named = {n: [self.weight_name(w), turn] for n, (w, turn) in weights.items()}
        more = {"layer": layer, "settings": dict(attributes), "weights": named}
        return self.add("layer", inputs, {**more, "channels": channels}, **about)

    def is_weight(self, operand: Operand) -> bool:
        """Return whether an operand is one of the model's own arrays."""
        return isinstance(operand, str) and self._nodes[operand]["op"] == "weight"

    def weight_name(self, operand: Operand) -> str:
        """Return the name of the model's array that a node stands for."""
        return str(self._nodes[str(operand)]["attributes"]["name"])

    def shape_of(self, operand: Operand) -> tuple[int, ...]:
        """Return the shape of an operand; ``()`` for a number."""
        return tuple(self._nodes[operand]["shape"]) if isinstance(operand, str) else ()
