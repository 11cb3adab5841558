"""Validity checks of a program: its values, types, operations and sizes.

Programs that the harness creates from a spec need only some of these checks. A program in the file
of a reproducer needs all of them, because the file may contain anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from harness.errors import HarnessError, Place, SpecError, several, shorten, with_place
from harness.language.axes import FREE_SIZES
from harness.program.dims import LARGEST, Dim, Shape, shape_text
from harness.program.infer import INFER, TypeMismatch
from harness.program.ir import Block, Node, Port, Program, Type, walk_nodes
from harness.program.windows import WindowedAxis, misfit_text, windowed_axes

# Detection of sizes that are impossible for all arrays.

# The smallest allowed values of attributes of windows.
MINIMUM: Mapping[str, int] = {"stride": 1, "dilation": 1, "padding": 0, "after": 0}


def check_numbers(program: Program, places: Mapping[int, Place], fallback: Place) -> None:
    """Check the sizes of a program as numbers. Raises :class:`SpecError` if a size is impossible,
    e.g. if an axis has length 0, a slice exceeds its axis, or windows do not fit.

    ``places`` maps value numbers to positions in the spec. If a value has no position, an error
    about it is at ``fallback``.
    """
    for value, type_ in program.types.items():
        with with_place(places.get(value, fallback)):
            _check_shape(program.names.get(value, "a value"), type_.shape, program.sizes)
    for node in walk_nodes(program.nodes):
        with with_place(places.get(node.outputs[0], fallback)):
            for axis, count in _window_axes(program, node):
                _check_windows(node.op, axis, count, program.sizes)
            if node.op == "slice":
                length = program.types[node.inputs[0]].shape[node.attributes["axis"]]
                _check_slice(node, length, program.sizes)
    for port in (*program.parameters, *program.statistics):
        for stripe in (port.init or {}).get("stripes", ()):
            rows = _resolve_dim(stripe["rows"], program.sizes)
            if rows is not None and rows < 1:
                at = places.get(port.value, fallback)
                raise SpecError(f"{port.name}: a group of {stripe['rows']} = {rows} rows", at)


def _check_shape(name: str, shape: Shape, sizes: Mapping[str, int]) -> None:
    label, entries = f"{name} has shape {shape_text(shape)}", 1
    for dim in shape:
        number = _resolve_dim(dim, sizes)
        if number is not None and number < 1:
            raise SpecError(f"{label}, where {dim} = {number}: an axis needs at least 1 entry")
        entries *= number or 1
    if entries > LARGEST:
        raise SpecError(f"{label}: an array can have at most {LARGEST:,} entries")


def _check_windows(op: str, axis: WindowedAxis, count: Dim, sizes: Mapping[str, int]) -> None:
    for name, least in MINIMUM.items():
        number = _resolve_dim(getattr(axis, name), sizes)
        if number is not None and number < least:
            found = f"{getattr(axis, name)} = {number}"
            raise SpecError(f"{name} of {op} must be at least {least}, found {found}")
    rooms = [_resolve_dim(room, sizes) for room in axis.room(count)]
    if any(room is not None and room < 0 for room in rooms):
        raise SpecError(misfit_text(axis, count, sizes))


def _check_slice(node: Node, length: Dim, sizes: Mapping[str, int]) -> None:
    start, stop = Dim.of(node.attributes["start"]), Dim.of(node.attributes["stop"])
    for low, high in ((Dim(), start), (stop, length)):
        room = _resolve_dim(high - low, sizes)
        if room is not None and room < 0:
            raise SpecError(
                "this index or slice goes beyond the "
                f"{_resolve_dim(length, sizes) or length} entries of its axis: {start} to {stop}"
            )


def check_free_sizes(program: Program, places: Mapping[int, Place], fallback: Place) -> None:
    """Check the free sizes, batch and time. If equations need such a size as a number, some input
    or state must have an axis of this size. Raises :class:`SpecError` if none has.

    For losses, an axis of a target is sufficient. ``places`` maps value numbers to positions in the
    spec; an error about a value without a position is at ``fallback``.
    """
    ports = (*program.inputs, *program.state)
    declared_sizes = {n for port in ports for dim in program.type_of(port).shape for n in dim.names}
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
            if name not in declared_sizes and any(name in dim.names for dim in dims):
                raise SpecError(
                    f"{program.names.get(value, 'this')} needs {name!r}, which the arrays decide, "
                    f"but no input or state has that axis: add the axis to one, or declare a "
                    "size with a different name",
                    places.get(value, fallback),
                )


def room_of(program: Program) -> tuple[Dim, ...]:
    """Return the differences of sizes that must be at least 0, because otherwise a slice or a
    window does not fit its axis, e.g. ``time - 3``. Differences that cannot be negative, or whose
    number is known, are left out."""
    dims: dict[Dim, None] = {}
    for node in walk_nodes(program.nodes):
        for axis, count in _window_axes(program, node):
            dims.update(dict.fromkeys((count - 1, *axis.room(count))))
        if node.op == "slice":
            length = program.types[node.inputs[0]].shape[node.attributes["axis"]]
            start, stop = Dim.of(node.attributes["start"]), Dim.of(node.attributes["stop"])
            dims.update(dict.fromkeys((length - stop, stop - start - 1)))
    return tuple(d for d in dims if _can_be_negative(d) and _resolve_dim(d, program.sizes) is None)


def _window_axes(program: Program, node: Node) -> Iterator[tuple[WindowedAxis, Dim]]:
    if node.op in ("windows", "overlap_add"):
        yield from windowed_axes(node.op, program.types[node.inputs[0]].shape, node.attributes)


def _can_be_negative(dim: Dim) -> bool:
    """Return whether a dimension can be negative if all sizes are at least 1."""
    return any(c < 0 for _, c in dim.terms) or dim.constant + sum(c for _, c in dim.terms) < 0


def _resolve_dim(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    return dim.resolve(sizes) if all(name in sizes for name in dim.names) else None


# The errors that type inference may raise for wrong operands or attributes.
INFERENCE_ERRORS = (
    TypeMismatch,
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    HarnessError,
)
INCOMING = ("inputs", "targets", "state", "statistics", "parameters")
OUTGOING = ("outputs", "new_state", "new_statistics", "metrics")


class MalformedProgram(HarnessError):
    """An error for data that are not a valid program. The message says why."""


def check_program(program: Program) -> None:
    """Check all parts of a program.

    Raises:
        MalformedProgram: a value is unknown, defined twice or has a wrong type; an operation is
            unknown or has wrong operands; or a size is missing or impossible.
    """
    if not isinstance(program, Program):
        raise MalformedProgram(f"this is not a program but {shorten(repr(program))}")
    _check_sizes(program)
    defined: set[int] = set()
    for group in INCOMING:
        for port in getattr(program, group):
            _define(program, defined, (port.value,), f"{group} {port.name!r}")
    for node in program.nodes:
        _check_node(program, defined, node)
    results: list[Port] = [port for group in OUTGOING for port in getattr(program, group)]
    for port in results:
        _require(defined, (port.value,), f"result {port.name!r}")
    if program.loss is not None:
        _require(defined, (program.loss,), "the loss")
    try:
        check_numbers(program, {}, Place("program.json", 1, 1))
    except INFERENCE_ERRORS as error:
        raise MalformedProgram(f"its sizes do not fit: {error}") from None


def _check_sizes(program: Program) -> None:
    names = {*program.sizes, *FREE_SIZES}
    for name, size in program.sizes.items():
        if not 0 < size < 2**31:
            raise MalformedProgram(f"size {shorten(name)!r} is {shorten(str(size))}")
    for type_ in program.types.values():
        for dim in (*type_.shape, *([type_.bound] if type_.bound else [])):
            unknown = [name for name in dim.names if name not in names]
            if unknown:
                raise MalformedProgram(f"size {shorten(unknown[0])!r} has no number")


def _define(program: Program, defined: set[int], values: Iterable[int], label: str) -> None:
    for value in values:
        if value in defined:
            raise MalformedProgram(f"{shorten(label)} defines value {value} a second time")
        if value not in program.types:
            raise MalformedProgram(f"{shorten(label)}: value {value} has no type")
        defined.add(value)


def _require(defined: set[int], values: Iterable[int], label: str) -> None:
    for value in values:
        if value not in defined:
            raise MalformedProgram(f"{shorten(label)} needs value {value}, which nothing defines")


def _check_node(program: Program, defined: set[int], node: Node) -> None:
    _require(defined, node.inputs, node.op)
    if node.op in ("call", "scan"):
        _check_body(program, defined, node)
        return
    if node.op not in INFER or node.body is not None:
        raise MalformedProgram(f"{shorten(repr(node.op))} is not an operation")
    try:
        result_type = INFER[node.op](tuple(program.types[i] for i in node.inputs), node.attributes)
        (output,) = node.outputs
    except INFERENCE_ERRORS as error:
        raise MalformedProgram(
            f"{node.op} does not fit its operands: {shorten(str(error))}"
        ) from None
    _define(program, defined, (output,), node.op)
    # Shape and kind must match. The bound of an index may differ.
    declared_type = program.types[output]
    if (result_type.shape, result_type.kind) != (declared_type.shape, declared_type.kind):
        raise MalformedProgram(
            f"{node.op} returns {result_type}, but value {output} is {declared_type}"
        )


def _check_body(program: Program, defined: set[int], node: Node) -> None:
    body = node.body
    if body is None:
        raise MalformedProgram(f"a {node.op} has no body")
    inner = set(defined)
    if node.op == "scan":
        _check_scan(program, node, body)
        _define(program, inner, body.inputs, "a body")
    for part in body.nodes:
        _check_node(program, inner, part)
    _require(inner, body.outputs, "a body")
    if node.op == "call":
        if body.outputs != node.outputs:
            raise MalformedProgram("the results of a call differ from those of its body")
        _check_call(node)
        defined |= inner
    else:
        _define(program, defined, node.outputs, "scan")


def _check_call(node: Node) -> None:
    """Check those attributes of a call node that backends read."""
    attributes = node.attributes
    for name in ("label", "definition", *(["instance"] if "instance" in attributes else [])):
        if not isinstance(attributes.get(name), str):
            found = shorten(repr(attributes.get(name)))
            raise MalformedProgram(f"{name!r} of a call must be text, found {found}")
    for name in ("roles", "results"):
        texts = attributes.get(name)
        if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
            raise MalformedProgram(
                f"{name!r} of a call must be texts, found {shorten(repr(texts))}"
            )
    if len(attributes["roles"]) != len(node.inputs):
        raise MalformedProgram(
            f"a call of {shorten(attributes['label'])} has {several(len(node.inputs), 'input')}, "
            f"but {several(len(attributes['roles']), 'role')} of inputs"
        )
    if not isinstance(attributes.get("attributes"), Mapping):
        found = shorten(repr(attributes.get("attributes")))
        raise MalformedProgram(f"'attributes' of a call must be a mapping, found {found}")


def _check_scan(program: Program, node: Node, body: Block) -> None:
    """Check that a loop's carried values keep their types, and that slices fit their sequences."""
    count, reverse = node.attributes.get("carries"), node.attributes.get("reverse")
    fits = len(body.inputs) == len(node.inputs) and isinstance(reverse, bool)
    if not isinstance(count, int) or not 0 <= count < len(node.inputs) or not fits:
        raise MalformedProgram(
            "a scan needs carried values, then sequences; its body needs as many inputs"
        )
    if len(body.outputs) != len(node.outputs) or len(body.outputs) < count:
        raise MalformedProgram("a scan must have as many results as its body")
    length = _sequence_length(program, node.inputs[count])
    types = program.types
    for outer, within in zip(node.inputs[count:], body.inputs[count:], strict=True):
        if _sequence_length(program, outer) != length:
            raise MalformedProgram("the sequences of a scan have different lengths")
        _check_type(types.get(within), Type(types[outer].shape[1:], types[outer].kind))
    for outer, within, after in zip(node.inputs[:count], body.inputs, body.outputs, strict=False):
        _check_type(types.get(within), types[outer])
        _check_type(types.get(after), types[outer])
    for outer, within in zip(node.outputs[count:], body.outputs[count:], strict=True):
        inner = types.get(within)
        if inner is not None:
            _check_type(types.get(outer), Type((length, *inner.shape), inner.kind))


def _sequence_length(program: Program, value: int) -> Dim:
    shape = program.types[value].shape
    if not shape:
        raise MalformedProgram("a sequence of a scan needs at least one axis")
    return shape[0]


def _check_type(actual: Type | None, expected: Type) -> None:
    if actual is None or (actual.shape, actual.kind) != (expected.shape, expected.kind):
        raise MalformedProgram(f"a scan needs {expected}, but its body has {actual}")
