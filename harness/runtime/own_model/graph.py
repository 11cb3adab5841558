"""The neutral graph of a traced model, as plain data that a worker returns.

A backend's tracer translates its framework's operators to these:

- the operators, built-in functions and shipped functions of the spec language, e.g. ``+`` or
  ``gelu``, and ``negative``;
- ``layer`` calls a shipped layer (attribute ``layer``) with its weights;
- ``input``, ``weight`` and ``constant`` (an array that depends on no input);
- ``reshape``, ``broadcast`` and ``cast``, which lead to the node's own shape or kind;
- ``permute`` (``axes``), ``slice`` (``axis``, ``start``, ``stop``, ``step``), ``select`` (``axis``,
  ``index``), ``concat`` (``axis``), and ``gather`` (several index arrays for ``axes``);
- ``windows`` and ``overlap_add`` (lists ``axes``, ``size``, ``stride``, ``dilation``, and ``pads``
  before and after each axis);
- ``attention`` (query, key, value, and a mask; ``zero_if_empty`` if its result is 0 for a mask
  without true entries), ``recurrent`` and its ``final_state``;
- ``unsupported``, an operator of the framework without a translation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

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
    ``config`` holds the whole numbers of the model's configuration. ``names`` maps the path of a
    layer in the names of arrays to a better path for the spec, e.g. ``dense_1`` to ``blocks.0.up``,
    or to "" if the framework made up the name.
    """

    label: str
    remarks: list[str]
    nodes: list[TracedNode]
    outputs: list[list[str]]
    weights: dict[str, list[Any]]
    config: dict[str, int]
    names: dict[str, str]


# The score of an entry that a mask excludes, as in the shipped attention layers; a spec cannot have
# minus infinity.
EXCLUDED = -1.0e30
# A score that is not above this number has no weight after a softmax.
MASK_THRESHOLD = -1.0e4
# A window of one entry, and no padding.
NO_WINDOWS: Mapping[str, Any] = {"size": [1], "stride": [1], "dilation": [1], "lowest": False}


def whole_numbers(config: Any) -> dict[str, int]:
    """Return the whole numbers from 2 in a mapping or in the attributes of an object, by name."""
    entries = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
    return {str(n): v for n, v in entries.items() if type(v) is int and v > 1}


def short_pads(pairs: Sequence[Sequence[int]]) -> list[Any]:
    """Return one number for each axis if the padding before and after it is the same, else the
    pairs (before, after)."""
    equal = all(before == after for before, after in pairs)
    return [before for before, _ in pairs] if equal else [list(pair) for pair in pairs]


R = TypeVar("R", bound=Callable[..., Any])


class Rules(dict[str, R]):
    """A tracer's rules, by the name of the framework's operator or layer."""

    def of(self, *names: str) -> Callable[[R], R]:
        """Return a decorator that makes a function the rule of these names."""

        def register(function: R) -> R:
            self.update(dict.fromkeys(names, function))
            return function

        return register


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
        self.graph = TracedGraph(
            label=label, remarks=[], nodes=[], outputs=[], weights=arrays, config={}, names={}
        )
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

    def node(
        self,
        op: str,
        inputs: Sequence[Operand],
        about: Mapping[str, Any],
        shape: Sequence[int] | None = None,
        kind: str | None = None,
        **attributes: Any,
    ) -> str:
        """Add a node and return its name. ``about`` has the other arguments of :meth:`add`; a shape
        and a kind replace those in it."""
        own = {"shape": shape, "kind": kind}
        return self.add(
            op, inputs, attributes, **{**about, **{n: v for n, v in own.items() if v is not None}}
        )

    def cut(
        self, value: Operand, axis: int, bounds: tuple[int, int, int], about: Mapping[str, Any]
    ) -> Operand:
        """Add a slice of one axis (start, stop, step) and return its name; return the value itself
        for a slice of the whole axis."""
        shape = list(self.shape_of(value))
        length = shape[axis]
        if bounds == (0, length, 1):
            return value
        start, stop, step = bounds
        shape[axis] = len(range(*bounds))
        cut = {"axis": axis, "start": start, "stop": stop, "step": step, "length": length}
        return self.add("slice", [value], cut, **{**about, "shape": shape})

    def dropout(
        self, value: Operand, keep: float, mask: Sequence[int], about: Mapping[str, Any]
    ) -> str:
        """Add dropout and return its name. ``mask`` is the shape of the random numbers: along an
        axis of length 1, all values share a number."""
        if tuple(mask) == self.shape_of(value):
            return self.layer("dropout", [value], {"keep": keep}, {}, about)
        part, few = value, {**about, "shape": mask}
        for axis in (axis for axis, length in enumerate(mask) if length == 1):
            part = self.cut(part, axis, (0, 1, 1), about)
        ones = self.node("+", [self.node("*", [part, 0.0], few), 1.0], few)
        kept = self.layer("dropout", [ones], {"keep": keep}, {}, few)
        return self.node("*", [value, kept], about)

    def standardized(
        self,
        value: Operand,
        mean: Operand,
        variance: Operand,
        epsilon: float,
        about: Mapping[str, Any],
    ) -> str:
        """Add ``(value - mean) / sqrt(variance + epsilon)`` and return its name: a batch norm whose
        statistics are constants, without its weights."""
        few = {**about, "shape": self.shape_of(variance)}
        root = self.node("sqrt", [self.node("+", [variance, epsilon], few)], few)
        return self.node("/", [self.node("-", [value, mean], about), root], about)

    def reshape(self, value: Operand, about: Mapping[str, Any]) -> Operand:
        """Add a reshape and return its name; if reshapes lead back to a value, return the value."""
        source = value
        while isinstance(source, str) and self._nodes[source]["op"] == "reshape":
            source = self._nodes[source]["inputs"][0]
            if list(about["shape"]) == self._nodes[str(source)]["shape"]:
                return source
        return self.add("reshape", [value], {}, **about)

    def select(self, value: Operand, axis: int, index: int, about: Mapping[str, Any]) -> str:
        """Add the entry of an axis at an index, which may be negative; return its name."""
        shape = list(self.shape_of(value))
        length = shape.pop(axis)
        picked = {"axis": axis, "index": index % length, "length": length}
        return self.add("select", [value], picked, **{**about, "shape": shape})

    def pad(
        self,
        value: Operand,
        pairs: Mapping[int, Sequence[int]],
        about: Mapping[str, Any],
        number: float = 0,
    ) -> Operand:
        """Add entries with a number before and after axes; ``pairs`` has their numbers by axis."""
        if pairs and number not in (0, -math.inf):
            shifted = self.node("-", [value, number], about, self.shape_of(value))
            return self.node("+", [self.pad(shifted, pairs, about), number], about)
        shape = list(self.shape_of(value))
        for axis, pair in pairs.items():
            shape[axis] += sum(pair)
            # A window of one entry with padding is the entry; its axis of length 1 is removed.
            windows = {**NO_WINDOWS, "axes": [axis], "pads": [list(pair)], "lowest": number != 0}
            wide = (*shape[: axis + 1], 1, *shape[axis + 1 :])
            value = self.node("windows", [value], about, wide, **windows)
            value = self.node("reshape", [value], about, shape)
        return value

    def pool(
        self,
        value: Operand,
        windows: Mapping[str, Any],
        op: str,
        about: Mapping[str, Any],
        counted: bool = False,
        channels: int = -1,
    ) -> str:
        """Add the ``mean`` or ``max`` over the windows of an image.

        ``windows`` has the lists ``size``, ``stride``, ``dilation`` and ``pads`` (pairs), with an
        entry for each axis of the image. A mean includes padding only if ``counted``. ``channels``
        is the axis of the channels, 1 or -1.
        """
        shape = self.shape_of(value)
        columns = (windows[n] for n in ("pads", "size", "dilation", "stride"))
        counts = [
            (length + sum(pair) - (size - 1) * dilation - 1) // stride + 1
            for length, pair, size, dilation, stride in zip(
                shape[1:-1] if channels == -1 else shape[2:], *columns, strict=True
            )
        ]
        own = (*counts, shape[-1]) if channels == -1 else (shape[1], *counts)
        about = {**about, "shape": (shape[0], *own)}
        counted = counted or not any(n for pair in windows["pads"] for n in pair)
        if len(counts) == 2 and set(windows["dilation"]) == {1}:
            settings = {"window": windows["size"], "stride": windows["stride"]}
            settings["padding"] = short_pads(windows["pads"])
            if op == "mean" and not counted:
                settings["count_padding"] = False
            name = "max_pool_first" if op == "max" else "avg_pool"
            return self.layer(name, [value], settings, {}, about, channels)
        if channels == 1:
            return self.with_channels_last(
                value, lambda image, last: self.pool(image, windows, op, last, counted), about
            )
        if op == "max" or counted:
            return self._over_windows(value, windows, op, about)
        # The mean of windows over ones is the share of each window that is inside.
        one = {**about, "shape": (*shape[:-1], 1)}
        part = self.cut(value, len(shape) - 1, (0, 1, 1), one)
        ones = self.node("+", [1, self.node("*", [0, part], one)], one)
        share = self._over_windows(ones, windows, op, {**about, "shape": (*about["shape"][:-1], 1)})
        return self.node("/", [self._over_windows(value, windows, op, about), share], about)

    def with_channels_last(
        self,
        image: Operand,
        compute: Callable[[str, dict[str, Any]], Operand],
        about: Mapping[str, Any],
    ) -> str:
        """Add a value of an image with channels on axis 1, and return its name. ``compute`` gets
        the image with channels last, and returns the value with channels last."""
        shape, result = self.shape_of(image), about["shape"]
        last = [0, *range(2, len(shape)), 1]
        turned = self.node("permute", [image], about, [shape[n] for n in last], axes=last)
        value = compute(turned, {**about, "shape": tuple(result[n] for n in last)})
        axes = [0, len(shape) - 1, *range(1, len(shape) - 1)]
        return self.node("permute", [value], about, axes=axes)

    def _over_windows(
        self, value: Operand, windows: Mapping[str, Any], op: str, about: Mapping[str, Any]
    ) -> str:
        """Add a reduction of windows; the shape in ``about`` is the result's."""
        shape, rank = about["shape"], len(windows["size"])
        places = {**windows, "axes": list(range(1, 1 + rank)), "lowest": op == "max"}
        own = (*shape[:-1], *windows["size"], shape[-1])
        parts = self.add("windows", [value], places, **{**about, "shape": own})
        axes = list(range(1 + rank, 1 + 2 * rank))
        return self.node(op, [parts], about, axis=axes, keepdims=False)

    def convolve(
        self,
        value: Operand,
        kernel: Operand,
        windows: Mapping[str, Any],
        groups: int,
        about: Mapping[str, Any],
    ) -> str:
        """Add a convolution that no shipped layer has, and return its name.

        Args:
            value: The image ``[batch, ..., channels]``.
            kernel: ``[size, ..., channels / groups, units]``.
            windows: As for :meth:`pool`.
            groups: The number of groups of channels.
            about: The other arguments of :meth:`add`; the shape is the result's.
        """
        rank = len(windows["size"])
        own = (*about["shape"][:-1], *windows["size"], self.shape_of(value)[-1])
        places = {**windows, "axes": list(range(1, 1 + rank)), "lowest": False}
        parts = self.node("windows", [value], about, own, **places)
        return self.node("grouped_product", [parts, kernel], about, groups=groups)

    def convolve_transposed(
        self,
        value: Operand,
        kernel: Operand,
        windows: Mapping[str, Any],
        groups: int,
        about: Mapping[str, Any],
    ) -> str:
        """Add a transposed convolution and return its name.

        The arguments are those of :meth:`convolve`, but the kernel is ``[channels, size, ...,
        units / groups]``, and the padding makes the result smaller.
        """
        batch, *counts, channels = self.shape_of(value)
        *lengths, units = about["shape"][1:]
        size, each = windows["size"], units // groups
        many = math.prod(size) * each
        if groups == 1:
            table = self.node("reshape", [kernel], about, (channels, many))
            parts = self.node("@", [value, table], about, (batch, *counts, many))
            parts = self.node("reshape", [parts], about, (batch, *counts, *size, units))
        else:
            table = self.node("reshape", [kernel], about, (groups, channels // groups, many))
            lead = (batch, *counts, groups, 1)
            rows = self.node("reshape", [value], about, (*lead, channels // groups))
            parts = self.node("@", [rows, table], about, (*lead, many))
            wide = [batch, *counts, groups, *size, each]
            parts = self.node("reshape", [parts], about, wide)
            place, rank = 1 + len(counts), len(wide)
            axes = [*range(place), *range(place + 1, rank - 1), place, rank - 1]
            parts = self.node("permute", [parts], about, [wide[n] for n in axes], axes=axes)
            parts = self.node("reshape", [parts], about, (batch, *counts, *size, units))
        return self.overlap_add(parts, windows, lengths, about)

    def overlap_add(
        self,
        parts: Operand,
        windows: Mapping[str, Any],
        lengths: Sequence[int],
        about: Mapping[str, Any],
    ) -> str:
        """Add the sum of windows ``[batch, count, ..., size, ..., channels]`` at their places, and
        return its name. ``lengths`` has the length of each axis of the result."""
        rank = len(lengths)
        shape = self.shape_of(parts)
        ends = [
            (count - 1) * stride + (size - 1) * dilation + 1 - sum(pair)
            for count, stride, size, dilation, pair in zip(
                shape[1 : 1 + rank],
                *(windows[n] for n in ("stride", "size", "dilation", "pads")),
                strict=True,
            )
        ]
        places = {**windows, "axes": list(range(1, 1 + rank))}
        if ends != list(lengths):
            places["length"] = list(lengths)
        return self.node("overlap_add", [parts], about, (shape[0], *lengths, shape[-1]), **places)

    def layer(
        self,
        layer: str,
        inputs: Sequence[Operand],
        attributes: Mapping[str, Any],
        weights: Mapping[str, tuple[Operand, str]],
        about: Mapping[str, Any],
        channels: int = -1,
    ) -> str:
        """Add a call of a shipped layer and return its name; if its weights are computed, an
        unsupported operator.

        Args:
            layer: The name of the layer's definition.
            inputs: The layer's inputs.
            attributes: The layer's attributes.
            weights: The parameter's name -> the weight's node, and the end of a ``--map`` rule that
                turns the weight into the parameter, e.g. ``.T``.
            about: The other arguments of :meth:`add`.
            channels: The axis of the channels, which is the last axis in the spec language.
        """
        if not all(self.is_weight(w) for w, _ in weights.values()):
            refused = {"operator": layer, "reason": "its weights are computed"}
            return self.add("unsupported", inputs, refused, **about)
        named = {n: [self.weight_name(w), turn] for n, (w, turn) in weights.items()}
        more = {"layer": layer, "settings": dict(attributes), "weights": named}
        return self.add("layer", inputs, {**more, "channels": channels}, **about)

    def group_norm(
        self,
        value: Operand,
        settings: Mapping[str, Any],
        weights: Mapping[str, tuple[Operand, str]],
        about: Mapping[str, Any],
        channels: int = -1,
    ) -> Operand:
        """Add a call of the shipped ``group_norm``, which has one axis of places, and return the
        result in the shape of ``value``. The arguments are those of :meth:`layer`."""
        batch, *places, units = shape = about["shape"]
        if channels == 1 and places:
            return self.with_channels_last(
                value, lambda x, last: self.group_norm(x, settings, weights, last), about
            )
        flat = {**about, "shape": (batch, math.prod(places), units)}
        value = self.reshape(value, flat) if len(shape) != 3 else value
        value = self.layer("group_norm", [value], settings, weights, flat)
        return self.reshape(value, about) if len(shape) != 3 else value

    def is_weight(self, operand: Operand) -> bool:
        """Return whether an operand is one of the model's own arrays."""
        return isinstance(operand, str) and self._nodes[operand]["op"] == "weight"

    def weight_name(self, operand: Operand) -> str:
        """Return the name of the model's array that a node stands for."""
        return str(self._nodes[str(operand)]["attributes"]["name"])

    def shape_of(self, operand: Operand) -> tuple[int, ...]:
        """Return the shape of an operand; ``()`` for a number."""
        return tuple(self._nodes[operand]["shape"]) if isinstance(operand, str) else ()
