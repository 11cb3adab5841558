"""Recognise attention that a model writes as equations: a softmax of scores, times values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from harness.porting.graph import TracedCall
from harness.porting.rewriting import Calls
from harness.runtime.own_model.graph import MASK_THRESHOLD


def drop_shifts(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Remove a number that a softmax subtracts from all entries, which does not change it."""
    if call.op != "softmax":
        return [call]
    shifted = done[call.inputs[0]]
    if shifted.op == "-" and all(isinstance(i, str) for i in shifted.inputs):
        x, shift = (done[i] for i in shifted.inputs)
        axis = call.attributes["axis"]
        if x.shape == call.shape and len(shift.shape) == len(x.shape) and shift.shape[axis] == 1:
            return [call.with_inputs([x.name])]
    return [call]


def move_unit_axes(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Write a permutation that moves only axes of length 1 as a reshape, and move a softmax and a
    product with a number before a reshape that keeps the last axis."""
    source = done.get(call.inputs[0]) if call.inputs else None
    if source is None:
        return [call]
    inner = source
    while inner.op == "reshape":
        inner = done[inner.inputs[0]]
    if call.op == "permute":
        long = [axis for axis in call.attributes["axes"] if source.shape[axis] != 1]
        reshaped = replace(call, op="reshape", inputs=(inner.name,), attributes={})
        return [reshaped if long == sorted(long) else call]
    scaled = call.op in ("*", "/") and isinstance(call.inputs[1], int | float)
    softmax = call.op == "softmax" and call.attributes["axis"] == len(call.shape) - 1
    if inner is source or not (scaled or softmax) or inner.shape[-1:] != call.shape[-1:]:
        return [call]
    changed = {"axis": len(inner.shape) - 1} if softmax else {}
    moved = calls.on(call, [inner.name, *call.inputs[1:]], inner.shape, **changed)
    return [moved, calls.new(call, "reshape", [moved.name], call.shape)]


def recognise_attention(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Replace ``softmax(q @ k.T * scale) @ v``, perhaps with a mask and dropout, by
    ``attention``, unless other calls use the softmax."""
    if call.op != "@" or not all(isinstance(i, str) for i in call.inputs):
        return [call]
    chosen, value = (done[i] for i in call.inputs)
    keep = 1.0
    if chosen.op == "layer" and chosen.attributes["layer"] == "dropout":
        keep, chosen = chosen.attributes["settings"]["keep"], done[chosen.inputs[0]]
    if any(calls.uses[name] > 1 for name in (call.inputs[0], chosen.name)):
        return [call]
    if chosen.op != "softmax" or chosen.attributes["axis"] != len(chosen.shape) - 1:
        return [call]
    scores, mask = _without_mask(done[chosen.inputs[0]], done)
    scores, scale = _without_factor(scores, done)
    if scores.op != "@" or scores.shape != chosen.shape:
        return [call]
    query, key = (done[i] for i in scores.inputs)
    rank = len(call.shape)
    last = [*range(rank - 2), rank - 1, rank - 2]
    if len(key.shape) != rank or len(query.shape) != rank:
        return [call]
    turned = calls.new(call, "permute", [key.name], [key.shape[a] for a in last], axes=last)
    attributes = {
        "scale": scale,
        "causal": False,
        "keep": keep,
        "width": query.shape[-1],
    }
    inputs = (query.name, turned.name, value.name, *mask)
    return [turned, replace(call, op="attention", inputs=inputs, attributes=attributes)]


def _without_mask(
    scores: TracedCall, done: Mapping[str, TracedCall]
) -> tuple[TracedCall, list[str]]:
    """Return the scores before a mask, and the mask in a list: true where a score counts."""
    if scores.op == "where":
        mask, inside, lowest = scores.inputs
        low = isinstance(lowest, int | float) and lowest <= MASK_THRESHOLD
        if low and isinstance(mask, str) and isinstance(inside, str):
            return done[inside], [mask]
    return scores, []


def _without_factor(
    product: TracedCall, done: Mapping[str, TracedCall]
) -> tuple[TracedCall, float]:
    """Return a value before it is multiplied by a number, and the number."""
    one, other = product.inputs if product.op in ("*", "/") else (None, None)
    if isinstance(one, str) and isinstance(other, int | float) and other:
        return done[one], float(other if product.op == "*" else 1 / other)
    return product, 1.0
