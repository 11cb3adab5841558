"""Type inference: the type of each operation's result from the types of its operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.program.dims import ONE, Attributes, Dim, Shape, entries, shape_text
from harness.program.ir import Type
from harness.program.windows import overlap_shape, windows_shape


class TypeMismatch(Exception):
    """Error: the types of operands do not fit an operation; the message names the operands and the
    reason. Callers add the position in the spec."""


Infer = Callable[[tuple[Type, ...], Attributes], Type]


def _floats(op: str, types: tuple[Type, ...]) -> None:
    for type_ in types:
        if type_.kind != "float":
            raise TypeMismatch(
                f"{op} needs floats, found {type_} (astype converts an index or a condition "
                "to floats)"
            )


def broadcast_shapes(op: str, shapes: tuple[Shape, ...]) -> Shape:
    """Return the shape to which shapes broadcast by the rules of the array API standard; raise
    :class:`TypeMismatch` if they do not fit."""
    first, *others = [shape for shape in shapes if shape] or [()]
    if all(shape == first for shape in others):
        return first
    rank = max(len(shape) for shape in shapes)
    result: list[Dim] = []
    for axis in range(-rank, 0):
        dims = {shape[axis] for shape in shapes if len(shape) >= -axis} - {ONE}
        if len(dims) > 1:
            raise TypeMismatch(
                f"{op}: shapes {' and '.join(map(shape_text, shapes))} cannot be broadcast together"
            )
        result.append(dims.pop() if dims else ONE)
    return tuple(result)


def _elementwise(op: str) -> Infer:
    def infer(types: tuple[Type, ...], _: Attributes) -> Type:
        _floats(op, types)
        return Type(broadcast_shapes(op, tuple(t.shape for t in types)))

    return infer


def _comparison(op: str) -> Infer:
    def infer(types: tuple[Type, ...], _: Attributes) -> Type:
        _floats(op, types)
        return Type(broadcast_shapes(op, tuple(t.shape for t in types)), "bool")

    return infer


def _where(types: tuple[Type, ...], _: Attributes) -> Type:
    if types[0].kind != "bool":
        raise TypeMismatch(f"where needs a condition such as a < b, found {types[0]}")
    shape = broadcast_shapes("where", tuple(t.shape for t in types))
    return _common_type("where", types[1:], shape)


def _common_type(op: str, types: tuple[Type, ...], shape: Shape) -> Type:
    """Return the common type of operands; the result gets the given ``shape``. Raise
    :class:`TypeMismatch` unless all operands are floats, all are conditions, or all are indices
    with the same bound."""
    first = types[0]
    for type_ in types:
        if type_.kind != first.kind:
            raise TypeMismatch(
                f"{op} needs values of the same kind, found {first} and {type_} (astype converts "
                "an index or a condition to floats; arange(n)[k] is the index k below n)"
            )
        if type_.bound != first.bound:
            raise TypeMismatch(
                f"{op} needs indices with the same bound, found an index below {first.bound} and "
                f"one below {type_.bound} (index(astype(i), n) converts i to an index below n)"
            )
    return Type(shape, first.kind, first.bound)


def _float_of_first(types: tuple[Type, ...], _: Attributes) -> Type:
    return Type(types[0].shape)


def _permute(types: tuple[Type, ...], attributes: Attributes) -> Type:
    axes = attributes["axes"]
    if sorted(axes) != list(range(len(types[0].shape))):
        raise TypeMismatch(
            f"permute_dims: axes {list(axes)} are not a permutation of the axes of {types[0]}"
        )
    return Type(tuple(types[0].shape[a] for a in axes), types[0].kind, types[0].bound)


def _broadcast(types: tuple[Type, ...], attributes: Attributes) -> Type:
    shape: Shape = attributes["shape"]
    if broadcast_shapes("broadcast_to", (types[0].shape, shape)) != shape:
        raise TypeMismatch(f"broadcast_to: {types[0]} cannot be broadcast to {shape_text(shape)}")
    return Type(shape, types[0].kind, types[0].bound)


def _reshape(types: tuple[Type, ...], attributes: Attributes) -> Type:
    shape: Shape = attributes["shape"]
    if entries(shape) != entries(types[0].shape):
        raise TypeMismatch(f"{shape_text(shape)} does not have as many entries as {types[0]}")
    return Type(shape, types[0].kind, types[0].bound)


def _arange(_: tuple[Type, ...], attributes: Attributes) -> Type:
    stop = Dim.of(attributes["stop"])
    return Type((stop,), "index", stop)


def _expand(types: tuple[Type, ...], attributes: Attributes) -> Type:
    axis = attributes["axis"]
    shape = types[0].shape
    if not 0 <= axis <= len(shape):
        raise TypeMismatch(f"expand_dims: axis {axis} is outside {types[0]}")
    return Type((*shape[:axis], ONE, *shape[axis:]), types[0].kind, types[0].bound)


def _squeeze(types: tuple[Type, ...], attributes: Attributes) -> Type:
    axis, shape = attributes["axis"], types[0].shape
    return Type((*shape[:axis], *shape[axis + 1 :]), types[0].kind, types[0].bound)


def _concat(types: tuple[Type, ...], attributes: Attributes) -> Type:
    axis = attributes["axis"]
    first = types[0].shape
    total = Dim()
    for type_ in types:
        other_dims = (*type_.shape[:axis], *type_.shape[axis + 1 :])
        if len(type_.shape) != len(first) or other_dims != (*first[:axis], *first[axis + 1 :]):
            types_text = " and ".join(str(t) for t in types)
            raise TypeMismatch(
                f"concat on axis {axis}: {types_text} have different lengths on another axis"
            )
        total = total + type_.shape[axis]
    return _common_type("concat", types, (*first[:axis], total, *first[axis + 1 :]))


def _slice(types: tuple[Type, ...], attributes: Attributes) -> Type:
    axis, shape = attributes["axis"], types[0].shape
    length = Dim.of(attributes["stop"]) - Dim.of(attributes["start"])
    return Type((*shape[:axis], length, *shape[axis + 1 :]), types[0].kind, types[0].bound)


def _windowed(op: str, shape: Callable[[Shape, Attributes], Shape]) -> Infer:
    def infer(types: tuple[Type, ...], attributes: Attributes) -> Type:
        _floats(op, types)
        return Type(shape(types[0].shape, attributes))

    return infer


def _same(types: tuple[Type, ...], _: Attributes) -> Type:
    return types[0]


def _take(types: tuple[Type, ...], _: Attributes) -> Type:
    table, indices = types
    _check_index("take", table.shape[0], indices)
    return Type((*indices.shape, *table.shape[1:]), table.kind, table.bound)


def _check_index(op: str, rows: Dim, indices: Type) -> None:
    if indices.kind != "index":
        raise TypeMismatch(f"{op} needs an index input, found {indices}")
    if indices.bound != rows:
        raise TypeMismatch(
            f"{op}: the index is below {indices.bound}, but the number of rows is {rows}"
        )


def _take_along(types: tuple[Type, ...], _: Attributes) -> Type:
    table, indices = types
    _check_index("take_along_axis", table.shape[-1], indices)
    if indices.shape[:-1] != table.shape[:-1]:
        raise TypeMismatch(
            f"take_along_axis: {table} and {indices} have different axes before the last axis"
        )
    return Type(indices.shape, table.kind, table.bound)


def _argsort(types: tuple[Type, ...], _: Attributes) -> Type:
    _floats("argsort", types)
    return Type(types[0].shape, "index", types[0].shape[-1])


def _one_hot(types: tuple[Type, ...], attributes: Attributes) -> Type:
    _check_index("one_hot", attributes["classes"], types[0])
    return Type((*types[0].shape, attributes["classes"]))


def _segment_sum(types: tuple[Type, ...], attributes: Attributes) -> Type:
    values, indices = types
    return Type((attributes["rows"], *values.shape[len(indices.shape) :]))


def _reduction(op: str) -> Infer:
    def infer(types: tuple[Type, ...], attributes: Attributes) -> Type:
        _floats(op, types)
        axes = attributes["axis"]
        shape = types[0].shape
        if attributes["keepdims"]:
            return Type(tuple(ONE if a in axes else d for a, d in enumerate(shape)))
        return Type(tuple(d for a, d in enumerate(shape) if a not in axes))

    return infer


def _matmul(types: tuple[Type, ...], _: Attributes) -> Type:
    _floats("@", types)
    left, right = types
    if len(left.shape) < 2 or len(right.shape) < 2:
        raise TypeMismatch(f"{left} @ {right}: both operands need at least two axes")
    if left.shape[-1] != right.shape[-2]:
        raise TypeMismatch(
            f"{left} @ {right}: the lengths {left.shape[-1]} and {right.shape[-2]} differ"
        )
    batch = (
        broadcast_shapes("@", (left.shape[:-2], right.shape[:-2]))
        if len(left.shape) + len(right.shape) > 4
        else ()
    )
    return Type((*batch, left.shape[-2], right.shape[-1]))


def _tensordot(types: tuple[Type, ...], attributes: Attributes) -> Type:
    left_axes, right_axes = attributes["axes"]
    left, right = types
    kept_left = tuple(d for a, d in enumerate(left.shape) if a not in left_axes)
    kept_right = tuple(d for a, d in enumerate(right.shape) if a not in right_axes)
    return Type(kept_left + kept_right)


def _scalar(_: tuple[Type, ...], __: Attributes) -> Type:
    return Type(())


INFER: Mapping[str, Infer] = {
    **{op: _elementwise(op) for op in ("exp", "log", "tanh", "sqrt", "negative")},
    **{op: _elementwise(op) for op in ("erf", "sin", "cos", "floor")},
    **{op: _elementwise(op) for op in ("add", "subtract", "multiply", "divide", "power")},
    **{op: _comparison(op) for op in ("less", "less_equal", "equal")},
    "where": _where,
    "astype": _float_of_first,
    "permute_dims": _permute,
    "broadcast_to": _broadcast,
    "reshape": _reshape,
    "arange": _arange,
    "expand_dims": _expand,
    "squeeze": _squeeze,
    "concat": _concat,
    "slice": _slice,
    "flip": _same,
    "windows": _windowed("windows", windows_shape),
    "overlap_add": _windowed("overlap_add", overlap_shape),
    "take": _take,
    "take_along_axis": _take_along,
    "one_hot": _one_hot,
    "segment_sum": _segment_sum,
    "cumulative_sum": _elementwise("cumulative_sum"),
    "argsort": _argsort,
    "sum": _reduction("sum"),
    "max": _reduction("max"),
    "matmul": _matmul,
    "tensordot": _tensordot,
    "stop_gradient": _same,
    "constant": _scalar,
    "extent": _scalar,
}


def _addmm(types: tuple[Type, ...], attributes: Attributes) -> Type:
    added, left, right = types
    product = _matmul((left, right), attributes)
    if INFER["add"]((added, product), attributes) != product:
        raise TypeMismatch(f"addmm: {added} cannot be broadcast to {product}")
    return product


# Functions that infer the types of fused operations (:mod:`harness.program.fused`).
FUSED_TYPES: Mapping[str, Infer] = {
    **dict.fromkeys(("sigmoid", "relu", "clip", "scatter_add", "softmax"), _float_of_first),
    **{f"{op}_gradient": INFER["add"] for op in ("sigmoid", "tanh", "relu", "clip")},
    "addmm": _addmm,
    "log_sum_exp": lambda types, _: Type((*types[0].shape[:-1], ONE)),
}


def infer(op: str, types: tuple[Type, ...], attributes: Attributes) -> Type:
    """Return the type of the result of the primitive or fused operation ``op``."""
    rule = INFER[op] if op in INFER else FUSED_TYPES[op]
    return rule(types, attributes)
