"""Simplify a traced graph: channels last, reshapes around layers, masks, and unused calls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.porting.rewriting import Calls
from harness.porting.sizes import Dim, TracedCall
from harness.porting.structure import LOCAL

# Functions of one array whose results do not depend on the array's shape.
UNARY = frozenset(
    [
        "exp",
        "log",
        "tanh",
        "sqrt",
        "erf",
        "sin",
        "cos",
        "floor",
        "relu",
        "sigmoid",
        "silu",
        "softplus",
        "abs",
        "sign",
        "negative",
        "~",
        "gelu",
        "gelu_tanh",
        "hard_sigmoid_sixth",
        "hard_swish",
        "relu6",
        "mish",
        "softsign",
        "leaky_relu",
        "elu",
        "cast",
    ]
)
BINARY = frozenset(
    [
        "+",
        "-",
        "*",
        "/",
        "**",
        "<",
        "<=",
        ">",
        ">=",
        "==",
        "!=",
        "&",
        "|",
        "maximum",
        "minimum",
        "where",
    ]
)
ELEMENTWISE = UNARY | BINARY
# The number that leaves the other operand unchanged.
NEUTRAL: Mapping[str, Any] = {"+": 0, "*": 1, "&": True, "|": False}
# Functions of an array along some of its axes.
REDUCTIONS = frozenset(["mean", "sum", "max"])
# Layers that work on the last axis only, whatever the axes before it.
LAST_AXIS = frozenset(["dense", "layer_norm", "rms_norm"])


def recognise_constants(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Replace numbers that depend on no input by a formula, if one is known."""
    inputs = []
    for name in call.inputs:
        source = done.get(name)
        number = (
            common_number(source)
            if source is not None and call.op in ELEMENTWISE | {"attention"}
            else None
        )
        inputs.append(name if number is None else number)
    call = call.with_inputs(inputs)
    if (same := _unchanged_operand(call, done)) is not None:
        return _with_shape(call, same)
    if call.values is None or call.op in ("weight", "input"):
        # A condition that is always true, or the same number for all scores.
        constant = len(inputs) == 4 and not isinstance(inputs[3], str)
        if call.op == "attention" and constant and inputs[3] is not False:
            return [call.with_inputs(inputs[:3])]
        if call.op == "where" and isinstance(inputs[0], bool):
            chosen = done.get(inputs[1 if inputs[0] else 2])
            return [call] if chosen is None else _with_shape(call, chosen)
        return [call]
    if (formula := _formula(call)) is not None:
        last = [len(call.shape) - 2, len(call.shape) - 1]
        kept = [formula["axis"]] if "axis" in formula else last
        shape = [n if axis in kept else 1 for axis, n in enumerate(call.shape)]
        # The spec language has no negative integers.
        call = replace(call, kind="float") if formula.get("start", 0) < 0 else call
        made = [replace(call, op="formula", inputs=(), attributes=formula, shape=tuple(shape))]
        if tuple(shape) != call.shape:
            made[0] = replace(made[0], name=calls.new(call, "", (), ()).name)
            made.append(replace(call, op="broadcast", inputs=(made[0].name,), attributes={}))
        return made
    return [call]


def _unchanged_operand(call: TracedCall, done: Mapping[str, TracedCall]) -> TracedCall | None:
    """Return the operand that is the value of a call, e.g. ``x`` for ``x + 0``; None if there is
    none."""
    numbers = [i for i in call.inputs if not isinstance(i, str)]
    if call.op not in NEUTRAL or len(numbers) != 1 or numbers[0] != NEUTRAL[call.op]:
        return None
    operand = done[call.sources[0]]
    return operand if operand.kind == call.kind else None


def _with_shape(call: TracedCall, value: TracedCall) -> list[TracedCall] | str:
    """Return a value with the shape of a call, for :meth:`Calls.rewrite`."""
    if value.shape == call.shape:
        return value.name
    return [replace(call, op="broadcast", inputs=(value.name,), attributes={})]


def common_number(call: TracedCall) -> Any:
    """Return the number that all entries of a constant call have in every trace, or None."""
    if call.values is None or any(v.size == 0 for v in call.values):
        return None
    first = call.values[0].ravel()[0]
    if call.op == "weight" or any((v != first).any() for v in call.values):
        return None
    # A float32 stands for the shortest decimal number that rounds to it, e.g. 0.3.
    return float(str(first)) if first.dtype == np.float32 else first.item()


def _formula(call: TracedCall) -> dict[str, Any] | None:
    """Return the formula of a constant: ``causal`` masks, or ``arange`` along an axis."""
    assert call.values is not None
    first = call.values[0]
    if first.ndim >= 2 and call.kind == "boolean" and all(_is_causal(v) for v in call.values):
        return {"formula": "causal", "time": call.shape[-1]}
    for axis, length in enumerate(call.shape if call.kind == "index" and first.size else ()):
        if length == 1:
            continue
        start = int(first.ravel()[0])
        steps = [start + np.arange(v.shape[axis]) for v in call.values]
        if all(
            (np.moveaxis(v, axis, -1) == row).all()
            for v, row in zip(call.values, steps, strict=True)
        ):
            return {"formula": "arange", "axis": axis, "start": start, "length": length}
    return None


def _is_causal(mask: Any) -> bool:
    rows, columns = mask.shape[-2:]
    return rows == columns and bool((mask == np.tril(np.ones((rows, columns), bool))).all())


def channels_last(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Move permutations behind elementwise calls, and let layers of images have channels last."""
    if call.op == "layer" and call.attributes["channels"] == 1 and len(call.shape) > 2:
        last = [0, *range(2, len(call.shape)), 1]
        turned = _permuted(calls, call, call.inputs[0], last, done)
        shape = [call.shape[a] for a in last]
        inner = calls.on(call, [turned[-1].name], shape, channels=-1)
        back = calls.new(call, "permute", [inner.name], call.shape, axes=_inverse(last))
        return [*turned, inner, back]
    if call.op == "permute":
        if (patches := _merged_image(call, done)) is not None:
            return [patches]
        return _permuted(calls, call, call.inputs[0], call.attributes["axes"], done)
    sources = [done[name] for name in call.sources]
    permuted = [s for s in sources if s.op == "permute" and len(s.shape) == len(call.shape)]
    if not permuted:
        return [call]
    axes = permuted[0].attributes["axes"]
    if call.op in ELEMENTWISE or (call.op == "layer" and call.attributes["layer"] == "dropout"):
        others = {
            s.name: _turned_vector(calls, s, axes, done)
            for s in sources
            if s.shape and not (s.op == "permute" and s.attributes["axes"] == axes)
        }
        vectors = {name: vector for name, vector in others.items() if vector is not None}
        if len(vectors) < len(others):
            return [call]
        own = call.with_inputs([vectors[i].name if i in vectors else i for i in call.inputs])
        return [*vectors.values(), *_permute_after(calls, own, done, axes)]
    if call.op == "layer" and call.attributes["layer"] in LAST_AXIS and axes[-1] == len(axes) - 1:
        return _permute_after(calls, call, done, axes)
    if call.op in REDUCTIONS | {"concat"} and all(
        s.op == "permute" and s.attributes["axes"] == axes for s in sources
    ):
        axis = call.attributes["axis"]
        moved = sorted(axes[a] for a in axis) if isinstance(axis, list) else axes[axis]
        return _permute_after(calls, call, done, axes, axis=moved)
    return [call]


def _permute_after(
    calls: Calls,
    call: TracedCall,
    done: Mapping[str, TracedCall],
    axes: Sequence[int],
    **changed: Any,
) -> list[TracedCall]:
    """Return a call on the values before a permutation, and the permutation of its result."""
    inputs = _before(call, done, "permute")
    inner = calls.on(call, inputs, [call.shape[a] for a in _inverse(axes)], **changed)
    return [inner, calls.new(call, "permute", [inner.name], call.shape, axes=list(axes))]


def _turned_vector(
    calls: Calls, source: TracedCall, axes: Sequence[int], done: Mapping[str, TracedCall]
) -> TracedCall | None:
    """Return a weight with at most one long axis in the form that broadcasts with the values before
    a permutation; None for other values."""
    origin = source
    while origin.op == "reshape":
        origin = done[origin.inputs[0]]
    if origin.op != "weight" or len(_long(source.shape)) > 1:
        return None
    whole = (*[1] * (len(axes) - len(source.shape)), *source.shape)
    shape = [whole[a] for a in _inverse(axes)]
    while shape and shape[0] == 1:
        shape = shape[1:]
    return calls.new(source, "reshape", [source.name], shape)


def _before(call: TracedCall, done: Mapping[str, TracedCall], op: str) -> list[Any]:
    """Return a call's inputs, with the source of an ``op`` call in place of this call."""
    return [done[i].inputs[0] if i in done and done[i].op == op else i for i in call.inputs]


def _permuted(
    calls: Calls, call: TracedCall, source: str, axes: Sequence[int], done: Mapping[str, TracedCall]
) -> list[TracedCall]:
    """Return the calls of a permutation of a value, joined with a permutation before it."""
    before = done[source]
    shape = [before.shape[a] for a in axes]
    if before.op == "permute":
        axes = [before.attributes["axes"][a] for a in axes]
        before = done[before.inputs[0]]
    if list(axes) == list(range(len(axes))):
        return [before]
    # An image is permuted outside of all modules, so that the first block is like the others.
    like = before if before.op == "input" and len(shape) > 3 else call
    return [calls.new(like, "permute", [before.name], shape, axes=list(axes))]


def _inverse(axes: Sequence[int]) -> list[int]:
    return [int(a) for a in np.argsort(axes)]


def move_reshapes(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Join reshapes, and move them behind layers that work on the last axis only."""
    source = done.get(call.inputs[0]) if call.inputs else None
    if call.op == "reshape" and source is not None:
        while source.op == "reshape":
            source = done[source.inputs[0]]
        # Axes of length 1 may be between the axes that a permutation moves.
        if source.op == "permute" and _long(done[source.inputs[0]].shape) == _long(call.shape):
            order = [
                a
                for a in source.attributes["axes"]
                if source.shape[source.attributes["axes"].index(a)] != 1
            ]
            source = done[source.inputs[0]] if order == sorted(order) else source
        if source.shape == call.shape:
            return source.name
        if source.op in REDUCTIONS and source.attributes["keepdims"]:
            axes = source.attributes["axis"]
            if [n for a, n in enumerate(source.shape) if a not in axes] == list(call.shape):
                return [calls.on(source, source.inputs, call.shape, keepdims=False)]
        return [call.with_inputs([source.name])]
    if source is None or source.op != "reshape":
        return [call]
    inner = done[source.inputs[0]]
    works_on_last = call.op == "layer" and call.attributes["layer"] in LAST_AXIS
    if calls.uses[source.name] > 1:
        return [call]
    made: list[TracedCall] = []
    if works_on_last and (axis := _last_axis(inner.shape, source.shape[-1])) is not None:
        if axis < len(inner.shape) - 1:
            shape = (*inner.shape[:axis], source.shape[-1])
            made.append(calls.new(source, "reshape", [inner.name], shape))
            inner = made[0]
        moved = calls.on(call, [inner.name, *call.inputs[1:]], [*inner.shape[:-1], call.shape[-1]])
    elif call.op in UNARY or (call.op == "layer" and call.attributes["layer"] == "dropout"):
        moved = calls.on(call, [inner.name], inner.shape)
    else:
        return [call]
    made.append(moved)
    if moved.shape != call.shape:
        made.append(calls.new(call, "reshape", [moved.name], call.shape))
    return made


def select_rows(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Select a part of a concatenation of single rows, e.g. the last of the final states."""
    if call.op != "select" or call.attributes["axis"] != 0:
        return [call]
    source = done[call.inputs[0]]
    parts = [source]
    if source.op == "concat" and source.attributes["axis"] == 0:
        parts = [done[name] for name in source.inputs]
    index = call.attributes["index"]
    if not isinstance(index, int) or any(part.shape[0] != 1 for part in parts):
        return [call]
    row = parts[index]
    if row.op == "reshape" and done[row.inputs[0]].shape == call.shape:
        return str(row.inputs[0])
    return [replace(call, op="reshape", inputs=(row.name,), attributes={})]


def share_concatenations(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Compute a concatenation outside of a module that gets all parts from outside, and from an
    earlier concatenation that has its first parts, as in DenseNet."""
    if call.op != "concat" or any(done[i].op in LOCAL for i in call.sources):
        return [call]
    if len(call.inputs) == 1:
        return str(call.inputs[0])
    modules = call.modules
    while modules and all(done[i].modules[: len(modules)] != modules for i in call.sources):
        modules = modules[:-1]
    parts, whole = _parts(call, done), call.inputs
    for other in done.values():
        own = _parts(other, done)
        if other.op == "concat" and other.attributes == call.attributes and len(own) > 1:
            if parts == own:
                return other.name
            if parts[: len(own)] == own:
                whole = (other.name, *parts[len(own) :])
    return [replace(call, inputs=whole, modules=modules)]


def _parts(call: TracedCall, done: Mapping[str, TracedCall]) -> list[Any]:
    """Return the parts of a concatenation, with the parts of inner concatenations."""
    parts: list[Any] = []
    for name in call.inputs if call.op == "concat" else ():
        inner = done[name]
        same = inner.op == "concat" and inner.attributes == call.attributes
        parts += _parts(inner, done) if same else [name]
    return parts


def _merged_image(call: TracedCall, done: Mapping[str, TracedCall]) -> TracedCall | None:
    """Return one merge of rows and columns for a sequence of patches, which torch makes by moving
    the channels twice."""
    source = done[call.inputs[0]]
    if list(call.attributes["axes"]) != [0, 2, 1] or source.op != "reshape":
        return None
    moved = done[source.inputs[0]]
    if moved.op != "permute" or list(moved.attributes["axes"]) != [0, 3, 1, 2]:
        return None
    if source.shape[:2] != moved.shape[:2]:
        return None
    return replace(call, op="reshape", inputs=moved.inputs, attributes={}, values=None)


def _last_axis(shape: Sequence[Dim], length: Dim) -> int | None:
    """Return the first of the last axes that a reshape merges to an axis of this length."""
    for axis in range(len(shape) - 1, 0, -1):
        last = shape[axis:]
        if all(isinstance(n, int) for n in last) and math.prod(last) == length:
            return axis
        if list(last) == [length]:
            return axis
    return None


def _long(shape: Sequence[Dim]) -> list[Dim]:
    return [n for n in shape if n != 1]


def drop_broadcasts(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Move a broadcast behind a call that broadcasts by itself, or remove it."""
    if call.op not in ELEMENTWISE | {"@", "attention"}:
        return [call]
    inputs = []
    for name in call.inputs:
        while name in done and done[name].op == "broadcast":
            name = done[name].inputs[0]
        inputs.append(name)
    call = call.with_inputs(inputs)
    if call.op not in ELEMENTWISE or not call.sources:
        return [call]
    shape = _common_shape([done[name].shape for name in call.sources])
    if shape == call.shape:
        return [call]
    inner = calls.on(call, inputs, shape)
    return [inner, replace(call, op="broadcast", inputs=(inner.name,), attributes={})]


def _common_shape(shapes: Sequence[Sequence[Dim]]) -> tuple[Dim, ...]:
    """Return the shape of an elementwise call of values with these shapes."""
    rank = max(map(len, shapes))
    columns = zip(*((*[1] * (rank - len(shape)), *shape) for shape in shapes), strict=True)
    return tuple(next((n for n in column if n != 1), 1) for column in columns)
