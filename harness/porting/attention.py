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
from harness.porting.rewriting import Calls
from harness.porting.sizes import Dim, TracedCall

# Calls that only move entries.
MOVES = frozenset({"reshape", "permute", "slice", "select", "broadcast"})
# Lengths of free sizes while positions are followed; they differ from most lengths of models.
LENGTHS = (3, 7, 5, 11)


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
        self.lengths = dict(zip(sizes, LENGTHS, strict=False))

    def __call__(
        self, calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
    ) -> Iterable[TracedCall] | str:
        """Replace the dense layer after an attention by an attention layer; see :class:`Calls`."""
        if call.op != "layer" or call.attributes["layer"] != "dense":
            return [call]
        chain, attention = self._back(call.inputs[0], done, {"attention"})
        if attention is None or attention.attributes["keep"] != 1:
            return [call]
        query, key, value = (self._heads(attention, i, done) for i in range(3))
        if query is None or key is None or value is None or not _same_input(query, key, value):
            return [call]
        if not self._merges_heads(chain, attention):
            return [call]
        found = _layer(attention, query, key, value, call, done)
        if found is None:
            return [call]
        x = done[query.dense.inputs[0]]
        layer = replace(calls.new(call, "layer", [x.name, *found[1]], x.shape), attributes=found[0])
        same = layer.shape[:-1] == call.shape[:-1]
        return (
            [layer]
            if same
            else [layer, replace(call, op="reshape", inputs=(layer.name,), attributes={})]
        )

    def _length(self, dim: Dim) -> int:
        return dim if isinstance(dim, int) else int(eval(dim, {"__builtins__": {}}, self.lengths))

    def _shape(self, call: TracedCall) -> tuple[int, ...]:
        return tuple(self._length(n) for n in call.shape)

    def _back(
        self, name: Any, done: Mapping[str, TracedCall], ops: set[str]
    ) -> tuple[list[TracedCall], TracedCall | None]:
        """Return the moves before a value, first to last, and the call of ``ops`` before them."""
        chain: list[TracedCall] = []
        while isinstance(name, str) and done[name].op in MOVES:
            chain.append(done[name])
            name = done[name].inputs[0]
        source = done.get(name) if isinstance(name, str) else None
        return chain[::-1], source if source is not None and source.op in ops else None

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
        after, rotary = self._back(attention.inputs[number], done, {"rotary", "layer"})
        before: list[TracedCall] = []
        dense = rotary
        if rotary is not None and rotary.op == "rotary":
            before, dense = self._back(rotary.inputs[0], done, {"layer"})
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

    def _merges_heads(self, chain: Iterable[TracedCall], attention: TracedCall) -> bool:
        """Return whether moves turn ``[batch, heads, time, width]`` into rows ``[batch, time]``."""
        shape = self._shape(attention)
        if len(shape) != 4:
            return False
        positions = np.arange(np.prod(shape)).reshape(shape)
        merged = positions.transpose(0, 2, 1, 3).reshape(shape[0], shape[2], -1)
        moved = self._move(positions, chain)
        return moved.shape == merged.shape and bool((moved == merged).all())


def _same_input(*heads: _Heads) -> bool:
    return len({h.dense.inputs for h in heads}) == 1 and heads[1].count == heads[2].count


def _layer(
    attention: TracedCall,
    query: _Heads,
    key: _Heads,
    value: _Heads,
    out: TracedCall,
    done: Mapping[str, TracedCall],
) -> tuple[dict[str, Any], list[Any]] | None:
    """Return the attributes of the shipped layer and its further inputs; None if there is none."""
    scale = attention.attributes["scale"]
    if abs(scale * query.width**0.5 - 1) > 1e-9:
        return None
    causal, mask = attention.attributes["causal"], list(attention.inputs[3:])
    if mask and done[mask[0]].op == "formula" and done[mask[0]].attributes["formula"] == "causal":
        causal, mask = True, []
    parts = {"q": query, "k": key, "v": value}
    biased = [h.dense.attributes["settings"].get("bias", True) for h in parts.values()]
    biased.append(out.attributes["settings"].get("bias", True))
    settings: dict[str, Any]
    if (
        query.rotary is not None
        and key.rotary is not None
        and causal
        and not mask
        and not any(biased)
    ):
        if query.rotary.attributes != key.rotary.attributes:
            return None
        layer = "grouped_attention"
        settings = {"groups": key.count, "each": key.repeats, **query.rotary.attributes}
    elif query.rotary is None and key.rotary is None and key.repeats == 1 and all(biased):
        layer = "causal_attention" if causal else "self_attention"
        settings = {"heads": query.count, "head": query.width}
        if mask:
            return None
    else:
        return None
    weights: dict[str, list[str]] = {}
    for letter, heads in parts.items():
        weights[f"W_{letter}"] = _columns(heads, "W")
        if all(biased):
            weights[f"b_{letter}"] = _columns(heads, "b")
    own = out.attributes["weights"]
    weights |= {"W_o": own["W"]} | ({"b_o": own["b"]} if all(biased) else {})
    owner = attention.modules[-1][0].split("@")[0] if attention.modules else ""
    attributes = {"layer": layer, "settings": settings, "weights": weights, "channels": -1}
    return {**attributes, **({"owner": owner} if owner else {})}, []


def _columns(heads: _Heads, parameter: str) -> list[str]:
    """Return the model's array and the part of it that holds the columns of these heads."""
    name, turn = heads.dense.attributes["weights"][parameter]
    count = heads.count * heads.width
    if heads.dense.attributes["settings"]["units"] == count:
        return [name, turn]
    cut = f"{heads.start}:{heads.start + count}"
    turned = parameter == "b" or turn == ".T"
    return [name, f"[{cut}]{turn}" if turned else f"[:, {cut}]"]
