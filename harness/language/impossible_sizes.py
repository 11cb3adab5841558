"""Sizes that cannot be: what a program's shapes come to in numbers, where arrays have no say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.errors import Place, SpecError
from harness.language.size_expressions import FREE_SIZES
from harness.program.dims import LARGEST, Dim, shape_text
from harness.program.ir import Node, Program, walk_nodes
from harness.program.windows import WindowedAxis, misfit, windowed_axes

# What may be said of windows, and the least number that it may be.
LEAST: Mapping[str, int] = {"stride": 1, "dilation": 1, "padding": 0, "after": 0}


def check_numbers(program: Program, places: Mapping[int, Place], otherwise: Place) -> None:
    """Raise :class:`SpecError` for an axis below 1, more entries than any array has, a slice beyond
    its axis, or windows that are not those of an axis.

    ``places`` tell where a value was made; errors about others stand at ``otherwise``.
    """
    sizes = program.sizes
    for value, type_ in program.types.items():
        told = f"{program.names.get(value, 'a value')} is {shape_text(type_.shape)}"
        entries = 1
        for dim in type_.shape:
            number = _number(dim, sizes)
            if number is not None and number < 1:
                raise SpecError(
                    f"{told}, where {dim} = {number}: an axis has 1 entry or more",
                    places.get(value, otherwise),
                )
            entries *= number or 1
        if entries > LARGEST:
            raise SpecError(
                f"{told}: no array has that many entries; at most {LARGEST:,}",
                places.get(value, otherwise),
            )
    for node in walk_nodes(program.nodes):
        for axis, count in _windowed(program, node):
            for name, least in LEAST.items():
                number = _number(getattr(axis, name), sizes)
                if number is not None and number < least:
                    at = places.get(node.output, otherwise)
                    told = f"{getattr(axis, name)} = {number}"
                    raise SpecError(f"{name} of {node.op} is {least} or more, found {told}", at)
            rooms = [_number(room, sizes) for room in axis.room(count)]
            if any(room is not None and room < 0 for room in rooms):
                at = places.get(node.output, otherwise)
                raise SpecError(misfit(axis, count, sizes), at)
        if node.op != "slice":
            continue
        length = program.types[node.inputs[0]].shape[node.attributes["axis"]]
        start, stop = Dim.of(node.attributes["start"]), Dim.of(node.attributes["stop"])
        for low, high in ((Dim(), start), (stop, length)):
            room = _number(high - low, sizes)
            if room is not None and room < 0:
                raise SpecError(
                    f"this goes beyond the axis of {_number(length, sizes) or length} entries: "
                    f"{start} to {stop}",
                    places.get(node.output, otherwise),
                )
    for port in (*program.parameters, *program.statistics):
        for stripe in (port.init or {}).get("stripes", ()):
            rows = _number(stripe["rows"], sizes)
            if rows is not None and rows < 1:
                at = places.get(port.value, otherwise)
                raise SpecError(f"{port.name}: a stripe of {stripe['rows']} = {rows} rows", at)


def check_told(program: Program, places: Mapping[int, Place], otherwise: Place) -> None:
    """Raise :class:`SpecError` where equations need a batch or a time that no input and no state
    has as an axis: no array would say how long it is. Losses may take it of the targets."""
    given = (*program.inputs, *program.state)
    told = {n for port in given for dim in program.type_of(port).shape for n in dim.names}
    first_target = min((port.value for port in program.targets), default=len(program.types))
    extents = {
        node.output: node.attributes["dims"]
        for node in walk_nodes(program.nodes)
        if node.op == "extent"
    }
    for value, type_ in program.types.items():
        if value >= first_target:
            return
        dims = (*type_.shape, *extents.get(value, ()), type_.bound or Dim())
        for name in FREE_SIZES:
            if name not in told and any(name in dim.names for dim in dims):
                raise SpecError(
                    f"{program.names.get(value, 'this')} needs {name!r}, which the arrays decide, "
                    f"and no input or state has an axis of it: give one that axis, or declare a "
                    "size of another name",
                    places.get(value, otherwise),
                )


def room_of(program: Program) -> tuple[Dim, ...]:
    """What slices and windows leave of their axes, where the arrays decide how much that is."""
    found: dict[Dim, None] = {}
    for node in walk_nodes(program.nodes):
        for axis, count in _windowed(program, node):
            found.update(dict.fromkeys((count - 1, *axis.room(count))))
        if node.op == "slice":
            length = program.types[node.inputs[0]].shape[node.attributes["axis"]]
            start, stop = Dim.of(node.attributes["start"]), Dim.of(node.attributes["stop"])
            found.update(dict.fromkeys((length - stop, stop - start - 1)))
    return tuple(d for d in found if _below(d) and _number(d, program.sizes) is None)


def _windowed(program: Program, node: Node) -> Iterator[tuple[WindowedAxis, Dim]]:
    """The windowed axes of a node, each with the number of its windows; of others none."""
    if node.op in ("windows", "overlap_add"):
        yield from windowed_axes(node.op, program.types[node.inputs[0]].shape, node.attributes)


def _below(dim: Dim) -> bool:
    """Whether it could be below 0 for some sizes from 1 on."""
    return any(c < 0 for _, c in dim.terms) or dim.constant + sum(c for _, c in dim.terms) < 0


def _number(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    return dim.resolve(sizes) if all(name in sizes for name in dim.names) else None
