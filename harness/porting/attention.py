"""Recognise the shipped attention layers around an ``attention`` call.

Frameworks split, permute and merge axes in many ways. Therefore the positions of all entries are
followed as numbers: each dense layer before the attention must give entry ``[b, h, t, d]`` of the
queries from its row ``[b, t]`` and a column of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.errors import Place
from harness.language.axes import size_of
from harness.language.document import Locator
from harness.language.expressions import parse_expression
from harness.porting.graph import Dim, TracedCall
from harness.porting.rewriting import Calls
from harness.porting.shape_rules import channels_last
from harness.porting.structure import MOVES, common_owner
from harness.program.dims import Dim as Size

# Lengths of free sizes while positions are followed; they differ from most lengths of models.
LENGTHS = (3, 7, 5, 11)


def fold_scales(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Let an attention scale its scores if the model scales the queries before it."""
    if call.op != "attention":
        return [call]
    moves, product = _back(call.inputs[0], done, {"*"})
    if product is None:
        return [call]
    numbers = [i for i in product.inputs if isinstance(i, float)]
    if len(numbers) != 1:
        return [call]
    moved: list[TracedCall] = []
    source = product.sources[0]
    for move in moves:
        moved.append(calls.on(move, [source], move.shape))
        source = moved[-1].name
    scale = call.attributes["scale"] * numbers[0]
    attributes = {**call.attributes, "scale": scale}
    return [*moved, replace(call, inputs=(source, *call.inputs[1:]), attributes=attributes)]


def _back(
    name: Any, done: Mapping[str, TracedCall], ops: set[str]
) -> tuple[list[TracedCall], TracedCall | None]:
    """Return the moves before a value, first to last, and the call of ``ops`` before them."""
    chain: list[TracedCall] = []
    while name in done and done[name].op in MOVES:
        chain.append(done[name])
        name = done[name].inputs[0]
    source = done.get(name)
    return chain[::-1], source if source is not None and source.op in ops else None


def drop_mask_casts(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Let a condition that a model stores as floats, e.g. a mask, stay a condition."""
    is_cast = call.op == "cast" and call.kind == "boolean"
    if not is_cast and (call.op != "!=" or call.inputs[1] != 0):
        return [call]
    moves, cast = _back(call.inputs[0], done, {"cast"})
    if cast is None or done[cast.inputs[0]].kind != "boolean":
        return [call]
    moved: list[TracedCall] = []
    source = cast.inputs[0]
    for move in moves:
        moved.append(replace(calls.on(move, [source], move.shape), kind="boolean"))
        source = moved[-1].name
    return moved or source


@dataclass(frozen=True)
class _Heads:
    """A dense layer whose columns are split into heads.

    ``start`` is the first column of head 0. ``repeats`` is the number of query heads per head.
    """

    dense: TracedCall
    rotary: TracedCall | None
    start: int
    count: int
    width: int
    repeats: int


class AttentionLayers:
    """The rewrite of ``attention`` calls to shipped layers.

    Args:
        sizes: The names of the free sizes.
    """

    def __init__(self, sizes: Iterable[str]) -> None:
        self.lengths = {n: Size(length) for n, length in zip(sizes, LENGTHS, strict=False)}

    def __call__(
        self, calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
    ) -> Iterable[TracedCall] | str:
        """Replace the dense layer after an attention by an attention layer; see :class:`Calls`.
        Move permutations behind later calls, because such a layer may end with one."""
        return self._recognise(calls, call, done) or channels_last(calls, call, done)

    def _recognise(
        self, calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
    ) -> list[TracedCall]:
        """Return the calls of an attention layer that ends with a dense layer; none if there is no
        such layer."""
        if call.op != "layer" or call.attributes["layer"] != "dense":
            return []
        chain, attention = _back(call.inputs[0], done, {"attention"})
        if attention is None:
            return []
        # A second use needs the same dropout.
        if attention.attributes["keep"] != 1 and any(
            calls.uses[c.name] > 1 for c in (attention, *chain)
        ):
            return []
        query, key, value = (self._heads(attention, i, done) for i in range(3))
        order = self._merged_order(chain, attention)
        if query is None or key is None or value is None or order is None:
            return []
        # A projection that other calls use needs a layer of its own.
        if not all(_feeds_only(h.dense.name, attention, calls) for h in (query, key, value)):
            return []
        match = _choose_layer(attention, {"q": query, "k": key, "v": value}, call, done)
        if match is None:
            return []
        name, inputs, settings = match
        weights = _weights({"q": query, "k": key, "v": value}, call)
        path = common_owner([weight for weight, _ in weights.values()])
        owner = {"owner": path} if path else {}
        shape = done[inputs[0]].shape
        new_calls = [calls.layer(call, name, inputs, shape, settings, weights, **owner)]
        if order != [0, 1, 2]:
            shape = tuple(shape[axis] for axis in order)
            new_calls.append(calls.new(call, "permute", [new_calls[0].name], shape, axes=order))
        if shape[:-1] != call.shape[:-1]:
            new_calls.append(calls.new(call, "reshape", [new_calls[-1].name], call.shape))
        return new_calls

    def _length(self, length: Dim) -> int:
        """Return a length for the chosen lengths of the free sizes."""
        if isinstance(length, int):
            return length
        return size_of(parse_expression(length, Locator(Place(""))), self.lengths).constant

    def _shape(self, call: TracedCall) -> tuple[int, ...]:
        return tuple(self._length(n) for n in call.shape)

    def _move(self, array: Array, chain: Iterable[TracedCall]) -> Array:
        """Apply moves to an array of positions."""
        for call in chain:
            a = call.attributes
            if call.op == "reshape":
                array = array.reshape(self._shape(call))
            elif call.op == "permute":
                array = array.transpose(a["axes"])
            elif call.op == "broadcast":
                array = np.broadcast_to(array, self._shape(call))
            elif call.op == "select":
                array = array.take(a["index"], axis=a["axis"])
            else:
                cut = slice(self._length(a["start"]), self._length(a["stop"]), a["step"])
                array = array[(*[slice(None)] * a["axis"], cut)]
        return array

    def _heads(
        self, attention: TracedCall, number: int, done: Mapping[str, TracedCall]
    ) -> _Heads | None:
        """Return the dense layer of the queries (0), keys (1) or values (2)."""
        after, rotary = _back(attention.inputs[number], done, {"rotary", "layer"})
        before: list[TracedCall] = []
        dense = rotary
        if rotary is not None and rotary.op == "rotary":
            before, dense = _back(rotary.inputs[0], done, {"layer"})
        else:
            rotary = None
        if dense is None or dense.attributes.get("layer") != "dense" or len(dense.shape) != 3:
            return None
        shape = self._shape(dense)
        positions = self._move(self._move(np.arange(np.prod(shape)).reshape(shape), before), after)
        if positions.ndim != 4:
            return None
        batch, heads, time, width = positions.shape
        row, column = np.divmod(positions, shape[-1])
        rows = np.arange(batch * time).reshape(batch, 1, time, 1)
        columns = column[0, :, 0, 0]
        repeats = int((columns == columns[0]).sum())
        expected = (
            columns[0] + np.arange(heads)[:, None, None] // repeats * width + np.arange(width)
        )
        if heads % repeats or (row != rows).any() or (column != expected).any():
            return None
        return _Heads(dense, rotary, int(columns[0]), heads // repeats, width, repeats)

    def _merged_order(self, chain: Iterable[TracedCall], attention: TracedCall) -> list[int] | None:
        """Return the order of the axes ``[batch, time, heads * width]`` to which moves turn
        ``[batch, heads, time, width]``; None if they do not."""
        shape = self._shape(attention)
        if len(shape) != 4:
            return None
        positions = np.arange(np.prod(shape)).reshape(shape)
        merged = positions.transpose(0, 2, 1, 3).reshape(shape[0], shape[2], -1)
        moved = self._move(positions, chain)
        orders = ([0, 1, 2], [1, 0, 2])
        return next((o for o in orders if np.array_equal(moved, merged.transpose(o))), None)


def _feeds_only(name: str, attention: TracedCall, calls: Calls) -> bool:
    """Return whether a value is used only by an attention, perhaps after moves."""
    if name in calls.outputs.values():
        return False
    return all(
        call.name == attention.name
        or (call.op in MOVES | {"rotary"} and _feeds_only(call.name, attention, calls))
        for call in calls.users.get(name, ())
    )


def _choose_layer(
    attention: TracedCall,
    heads: Mapping[str, _Heads],
    out: TracedCall,
    done: Mapping[str, TracedCall],
) -> tuple[str, list[str], dict[str, Any]] | None:
    """Return the name, the inputs and the settings of the shipped layer; None if there is none.

    ``heads`` has those of the queries ``q``, the keys ``k`` and the values ``v``.
    """
    query, key, value = heads["q"], heads["k"], heads["v"]
    (x,), (memory,) = query.dense.inputs, key.dense.inputs
    rotary = {
        None if h.rotary is None else tuple(h.rotary.attributes.items()) for h in (query, key)
    }
    if (
        abs(attention.attributes["scale"] * query.width**0.5 - 1) > 1e-9
        or value.dense.inputs != key.dense.inputs
        or (key.count, key.width) != (value.count, value.width)
        or out.shape[-1] != done[x].shape[-1]
        or len(rotary) > 1
    ):
        return None
    causal, masks = attention.attributes["causal"], list[str]()
    if len(attention.inputs) > 3:
        mask = done[attention.inputs[3]]
        if mask.op == "formula" and mask.attributes.get("shift") == 0:
            causal = True
        elif (padding := _padding_mask(mask, done)) is not None:
            masks = [padding]
        else:
            return None
    settings = {"keep": attention.attributes["keep"], "bias_o": _has_bias(out)}
    settings |= {f"bias_{letter}": _has_bias(h.dense) for letter, h in heads.items()}
    if query.rotary is not None:
        groups = {"groups": key.count, "each": key.repeats, **query.rotary.attributes}
        named = "grouped_attention" if causal and x == memory and not masks else None
        return (named, [x], {**groups, **settings}) if named else None
    if key.repeats > 1 or (x != memory and (causal or masks)) or (causal and masks):
        return None
    own = "causal_attention" if causal else "masked_attention" if masks else "self_attention"
    name = own if x == memory else "cross_attention"
    inputs = [*dict.fromkeys([x, memory]), *masks]
    if masks:
        settings["zero_if_empty"] = attention.attributes.get("zero_if_empty", False)
    return name, inputs, {"heads": query.count, "head": query.width, **settings}


def _padding_mask(mask: TracedCall, done: Mapping[str, TracedCall]) -> str | None:
    """Return the mask ``[batch, time]`` of a mask ``[batch, 1, 1, time]``, or None."""
    batch, *ones, time = mask.shape
    source = done[mask.inputs[0]] if mask.op == "reshape" else None
    if source is None or source.kind != "boolean" or ones != [1, 1]:
        return None
    return source.name if source.shape == (batch, time) else None


def _has_bias(dense: TracedCall) -> bool:
    return bool(dense.attributes["settings"].get("bias", True))


def _weights(parts: Mapping[str, _Heads], out: TracedCall) -> dict[str, list[str]]:
    """Return the model's arrays by the names of the attention layer's parameters."""
    own = out.attributes["weights"]
    return {
        **{
            f"{p}_{letter}": _columns(heads, p)
            for letter, heads in parts.items()
            for p in heads.dense.attributes["weights"]
        },
        **{f"{p}_o": own[p] for p in own},
    }


def _columns(heads: _Heads, parameter: str) -> list[str]:
    """Return the model's array and the part of it that holds the columns of these heads."""
    name, turn = heads.dense.attributes["weights"][parameter]
    count = heads.count * heads.width
    if heads.dense.attributes["settings"]["units"] == count:
        return [name, turn]
    cut = f"{heads.start}:{heads.start + count}"
    turned = parameter == "b" or turn == ".T"
    return [name, f"[{cut}]{turn}" if turned else f"[:, {cut}]"]
