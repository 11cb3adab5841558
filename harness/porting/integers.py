"""Write integers that depend on no input, such as the buckets of relative positions, in floats.

The indices of the spec language cannot be negative or divided. Floats can, and ``index`` turns the
result into an index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from harness.porting.graph import TracedCall
from harness.porting.rewriting import Calls
from harness.porting.shape_rules import BINARY, ELEMENTWISE, REDUCTIONS
from harness.porting.structure import MOVES

# Operators whose result is a float if an operand is a float.
COMPUTED = MOVES | ELEMENTWISE | REDUCTIONS | {"concat", "cumsum"}


def write_integers_as_floats(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Compute integers without a formula in floats; see :class:`Calls`."""
    sources = [done[name] for name in call.sources]
    if (place := _index_place(call)) is not None:
        return _with_index(calls, call, place, done)
    if call.op == "cast" and call.kind == "float" and sources[0].kind == "float":
        return sources[0].name
    if call.op == "constant" and call.kind == "index" and call.values is not None:
        negative = any((values < 0).any() for values in call.values)
        return [replace(call, kind="float")] if negative else [call]
    number = call.kind == "index" and call.values is not None
    if call.kind == "index" and call.op == "cast":
        if sources[0].kind == "float":
            return _cut(calls, replace(call, kind="float"))
        return [replace(call, kind="float")] if number or sources[0].kind == "boolean" else [call]
    if number and call.op in ELEMENTWISE:
        call = replace(call, kind="float")
    if call.kind == "index" and call.op in COMPUTED and "float" in {s.kind for s in sources}:
        call = replace(call, kind="float")
    if call.op in BINARY and (call.kind == "float" or "float" in {s.kind for s in sources}):
        return _with_casts(calls, call, done)
    return [call]


def _cut(calls: Calls, call: TracedCall) -> list[TracedCall]:
    """Return the calls that cut a float towards zero."""
    new_calls = [calls.new(call, "sign", call.inputs, call.shape)]
    new_calls += [calls.new(call, "abs", call.inputs, call.shape)]
    new_calls += [calls.new(call, "floor", [new_calls[1].name], call.shape)]
    return [
        *new_calls,
        replace(call, op="*", inputs=(new_calls[0].name, new_calls[2].name), attributes={}),
    ]


def _with_casts(calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]) -> list[TracedCall]:
    """Return a call after casts of its integers to floats."""
    casts = {
        name: replace(calls.new(call, "cast", [name], done[name].shape), kind="float")
        for name in dict.fromkeys(call.sources)
        if done[name].kind == "index" or (done[name].kind == "boolean" and call.op in "+-*/")
    }
    names = {name: cast.name for name, cast in casts.items()}
    return [*casts.values(), call.with_inputs([names.get(i, i) for i in call.inputs])]


def _index_place(call: TracedCall) -> int | None:
    """Return the position of the input that is an index, or None."""
    if call.op == "layer" and call.attributes["layer"] == "embedding":
        return 0
    return 1 if call.op in ("take", "take_along_axis") else None


def _with_index(
    calls: Calls, call: TracedCall, place: int, done: Mapping[str, TracedCall]
) -> list[TracedCall]:
    """Return a call that gets a float as an index, after the conversion of the float."""
    source = done[call.inputs[place]]
    below: Any = (
        call.attributes["settings"]["rows"]
        if call.op == "layer"
        else done[call.inputs[0]].shape[call.attributes["axis"]]
    )
    new_calls: list[TracedCall] = []
    if source.kind != "float":
        if _bound(source, done) in (None, below):
            return [call]
        new_calls = [replace(calls.new(call, "cast", [source.name], source.shape), kind="float")]
        source = new_calls[0]
    index = calls.new(call, "index", [source.name], source.shape, below=below)
    index = replace(index, kind="index")
    inputs = [index.name if n == place else i for n, i in enumerate(call.inputs)]
    return [*new_calls, index, call.with_inputs(inputs)]


def _bound(index: TracedCall, done: Mapping[str, TracedCall]) -> Any:
    """Return the length of the axis whose entries an index selects; None if it is unknown."""
    while index.op in MOVES:
        index = done[index.inputs[0]]
    if index.op not in ("argsort", "argmax"):
        return None
    return done[index.inputs[0]].shape[index.attributes["axis"]]
