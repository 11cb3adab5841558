"""Rules that simplify shapes: channels last, reshapes, broadcasts, gathers and concatenations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.porting.graph import Dim, TracedCall
from harness.porting.rewriting import Calls
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
        "clip",
        "gelu",
        "gelu_sigmoid",
        "gelu_tanh",
        "hard_sigmoid_fifth",
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
# Functions of an array along some of its axes.
REDUCTIONS = frozenset(["mean", "sum", "max"])
# Layers that work on the last axis only, whatever the axes before it.
LAST_AXIS = frozenset(["dense", "layer_norm", "rms_norm"])


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
    if call.op == "select" and sources[0].op == "permute":
        axes = list(sources[0].attributes["axes"])
        axis = axes.pop(call.attributes["axis"])
        if axes == sorted(axes):
            return [calls.on(call, sources[0].inputs, call.shape, axis=axis)]
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
    if call.op == "slice":
        return _permute_after(calls, call, done, axes, axis=axes[call.attributes["axis"]])
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
    # An input is permuted outside of all modules, so that the first block is like the others.
    like = before if before.op == "input" else call
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
    new_calls: list[TracedCall] = []
    if works_on_last and (axis := _last_axis(inner.shape, source.shape[-1])) is not None:
        if axis < len(inner.shape) - 1:
            shape = (*inner.shape[:axis], source.shape[-1])
            new_calls.append(calls.new(source, "reshape", [inner.name], shape))
            inner = new_calls[0]
        moved = calls.on(call, [inner.name, *call.inputs[1:]], [*inner.shape[:-1], call.shape[-1]])
    elif call.op in UNARY or (call.op == "layer" and call.attributes["layer"] == "dropout"):
        moved = calls.on(call, [inner.name], inner.shape)
    else:
        return [call]
    new_calls.append(moved)
    if moved.shape != call.shape:
        new_calls.append(calls.new(call, "reshape", [moved.name], call.shape))
    return new_calls


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


def drop_gathers(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Write the entries at all positions, as ``mask[arange(batch)[:, None], arange(time)]``, as a
    reshape."""
    if call.op != "gather":
        return [call]
    source, *indices = (done[name] for name in call.inputs)
    formulas = [{"formula": "arange", "start": 0, "length": length} for length in source.shape]
    index_formulas = [
        {n: i.attributes.get(n) for n in ("formula", "start", "length")} for i in indices
    ]
    places = [int(i.attributes.get("axis", 0)) + len(call.shape) - len(i.shape) for i in indices]
    in_order = call.attributes["axes"] == list(range(len(source.shape)))
    if index_formulas != formulas or not in_order or places != sorted(places):
        return [call]
    shape = tuple(n if axis in places else 1 for axis, n in enumerate(call.shape))
    moved = calls.new(call, "reshape", [source.name], shape)
    if shape == call.shape:
        return [moved]
    return [moved, replace(call, op="broadcast", inputs=(moved.name,), attributes={})]


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
    for number, name in enumerate(call.inputs):
        # A product broadcasts the axes before its last two only; the mask of an attention, all.
        is_factor = call.op not in ELEMENTWISE and number < 3
        while name in done and done[name].op == "broadcast":
            source = done[done[name].inputs[0]]
            if is_factor and source.shape[-2:] != done[name].shape[-2:]:
                break
            name = source.name
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
