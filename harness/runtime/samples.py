"""One call of every primitive, for which no model is needed."""

from __future__ import annotations

from collections.abc import Collection

from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.ir import Kind, Type


def every_primitive(offers: Collection[str]) -> Builder:
    """A call of every primitive: of those that a backend must have, and of those in ``offers``."""
    builder = Builder()

    def value(*shape: int, kind: Kind = "float", bound: int | None = None) -> int:
        dims = tuple(map(Dim.of, shape))
        return builder.value(Type(dims, kind, None if bound is None else Dim.of(bound)))

    matrix, row, cube = value(2, 3), value(3), value(2, 3, 4)
    for op in ("exp", "log", "tanh", "sqrt", "negative", "stop_gradient"):
        builder.emit(op, matrix)
    for op in ("add", "subtract", "multiply", "divide", "power", "less", "less_equal", "equal"):
        builder.emit(op, matrix, row)
    for op in ("erf", "sin", "cos", "floor", "cumulative_sum", "argsort"):
        if op in offers:
            builder.emit(op, matrix)
    if "arange" in offers:
        builder.emit("arange", stop=Dim.of(4))
    if "reshape" in offers:
        builder.emit("reshape", cube, shape=(Dim.of(3), Dim.of(8)))
    one = tuple(map(Dim.of, (1, 1)))
    kinds = dict.fromkeys(("stride", "dilation", "padding", "after"), one)
    framed = {"axes": (1, 2), "size": tuple(map(Dim.of, (2, 3))), **kinds}
    if "windows" in offers:
        builder.emit(
            "windows", value(2, 3, 4, 2), **framed, length=(Dim.of(4), Dim.of(4)), lowest=False
        )
    if "overlap_add" in offers:
        builder.emit(
            "overlap_add", value(2, 4, 4, 2, 3, 2), **framed, length=(Dim.of(3), Dim.of(4))
        )
    truth = value(2, 3, kind="bool")
    builder.emit("where", truth, matrix, row)
    places, other = (value(2, 3, kind="index", bound=5) for _ in range(2))
    builder.emit("where", truth, places, other)
    builder.emit("where", truth, truth, value(2, 3, kind="bool"))
    builder.emit("astype", truth)
    builder.emit("astype", value(2, kind="index", bound=4))
    builder.emit("permute_dims", cube, axes=(2, 0, 1))
    builder.emit("broadcast_to", row, shape=(Dim.of(2), Dim.of(3)))
    builder.emit("expand_dims", matrix, axis=1)
    builder.emit("squeeze", value(2, 1, 3), axis=1)
    builder.emit("concat", matrix, value(4, 3), axis=0)
    builder.emit("concat", places, other, axis=1)
    builder.emit("concat", truth, truth, axis=0)
    builder.emit("slice", cube, axis=1, start=1, stop=3)
    builder.emit("flip", matrix, axis=1)
    builder.emit("take", value(5, 3), value(2, 4, kind="index", bound=5))
    builder.emit("take", value(5, 3, kind="index", bound=4), value(2, kind="index", bound=5))
    builder.emit("take_along_axis", value(2, 5), value(2, 3, kind="index", bound=5))
    builder.emit("take_along_axis", value(2, 5, kind="index", bound=4), places)
    builder.emit("one_hot", value(2, kind="index", bound=4), classes=Dim.of(4))
    builder.emit("segment_sum", value(4, 3), value(4, kind="index", bound=5), rows=Dim.of(5))
    for op in ("sum", "max"):
        for axes in ((0, 2), (0, 1, 2), ()):
            builder.emit(op, cube, axis=axes, keepdims=False)
        builder.emit(op, cube, axis=(1,), keepdims=True)
    builder.emit("matmul", matrix, value(3, 4))
    builder.emit("tensordot", cube, value(3, 4, 5), axes=((1, 2), (0, 1)))
    return builder
