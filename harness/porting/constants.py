"""Replace numbers that depend on no input by a number or a formula."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.porting.graph import TracedCall
from harness.porting.rewriting import Calls
from harness.porting.shape_rules import ELEMENTWISE
from harness.runtime.own_model.graph import EXCLUDED

# The number that leaves the other operand unchanged.
NEUTRAL: Mapping[str, Any] = {"+": 0, "*": 1, "&": True, "|": False}


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
    if call.op == "where":
        inputs = [EXCLUDED if i == -math.inf else i for i in inputs]
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
    if (steps := _steps(call)) is not None:
        return _with_formula(calls, call, steps)
    if (mask := _mask(call)) is not None:
        return _with_mask(calls, call, mask)
    if (number := _on_diagonal(call)) is not None:
        return _with_diagonal(calls, call, number)
    number = common_number(call)
    if number is not None and call.kind == "float" and any(isinstance(n, str) for n in call.shape):
        return _spread(calls, call, number)
    return [call]


def _with_formula(calls: Calls, call: TracedCall, formula: Mapping[str, Any]) -> list[TracedCall]:
    """Return the calls of a formula that is known along one axis."""
    shape = tuple(n if axis == formula["axis"] else 1 for axis, n in enumerate(call.shape))
    # The spec language has no negative integers.
    call = replace(call, kind="float") if formula["start"] < 0 else call
    new_calls = [replace(call, op="formula", inputs=(), attributes=formula, shape=shape)]
    if call.kind == "float" and formula["start"] >= 0:
        new_calls = [replace(new_calls[0], kind="index", name=calls.new(call, "", (), ()).name)]
        new_calls.append(calls.new(call, "cast", [new_calls[0].name], shape))
    return _with_all_axes(calls, call, new_calls)


def _with_mask(calls: Calls, call: TracedCall, mask: _Mask) -> list[TracedCall]:
    """Return the calls of an array with one number on and below a diagonal, and one above it."""
    new_calls = [_lower_triangle(calls, call, mask.shift)]
    numbers = [EXCLUDED if n == -math.inf else n for n in (mask.below, mask.above)]
    if call.kind != "boolean":
        new_calls.append(
            calls.new(call, "where", [new_calls[0].name, *numbers], new_calls[0].shape)
        )
    elif mask.above:
        new_calls.append(calls.new(call, "~", [new_calls[0].name], new_calls[0].shape))
    return _with_all_axes(calls, call, new_calls)


def _with_diagonal(calls: Calls, call: TracedCall, number: Any) -> list[TracedCall]:
    """Return the calls of an array with a number on the diagonal, and 0 elsewhere."""
    new_calls = [_lower_triangle(calls, call, shift) for shift in (0, -1)]
    shape = new_calls[0].shape
    new_calls.append(replace(calls.new(call, "~", [new_calls[1].name], shape), kind="boolean"))
    both = [new_calls[0].name, new_calls[2].name]
    new_calls.append(replace(calls.new(call, "&", both, shape), kind="boolean"))
    if call.kind != "boolean":
        new_calls.append(calls.new(call, "where", [new_calls[-1].name, number, 0.0], shape))
    return _with_all_axes(calls, call, new_calls)


def _lower_triangle(calls: Calls, call: TracedCall, shift: int) -> TracedCall:
    """Return the call of a matrix that is true up to a diagonal, for the last axes of a call."""
    length = call.shape[-1]
    shape = (*[1] * (len(call.shape) - 2), length, length)
    own = {"formula": "causal", "time": length, "shift": shift}
    return replace(calls.new(call, "formula", (), shape, **own), kind="boolean")


def _with_all_axes(calls: Calls, call: TracedCall, new_calls: list[TracedCall]) -> list[TracedCall]:
    """Return calls whose last one has the name and the shape of a call."""
    if new_calls[-1].shape != call.shape:
        new_calls.append(calls.new(call, "broadcast", [new_calls[-1].name], call.shape))
    return [*new_calls[:-1], replace(new_calls[-1], name=call.name, values=call.values)]


def _spread(calls: Calls, call: TracedCall, number: float) -> list[TracedCall]:
    """Return the calls of an array with a free size whose entries are equal."""
    one = (1,) * len(call.shape)
    own = {"formula": "arange", "axis": 0, "start": 0, "length": 1}
    zero = replace(calls.new(call, "formula", (), one, **own), kind="index")
    new_calls = [zero, calls.new(call, "cast", [zero.name], one)]
    if number:
        new_calls.append(calls.new(call, "+", [new_calls[-1].name, number], one))
    return [*new_calls, replace(call, op="broadcast", inputs=(new_calls[-1].name,), attributes={})]


def join_masks(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Select scores by a mask that the model adds to them, as minus infinity or 0."""
    if call.op == "attention":
        mask_calls = _added_mask(calls, call.inputs[3:], done)
        mask = [mask_calls[-1].name] if mask_calls else call.inputs[3:]
        return [*mask_calls, call.with_inputs([*call.inputs[:3], *mask])]
    if call.op != "+":
        return [call]
    for scores, other in (call.inputs, call.inputs[::-1]):
        mask_calls = _added_mask(calls, [other], done)
        if mask_calls and isinstance(scores, str) and done[scores].shape == call.shape:
            return [
                *mask_calls,
                replace(call, op="where", inputs=(mask_calls[-1].name, scores, EXCLUDED)),
            ]
    return [call]


def drop_negations(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Write ``where(~c, x, y)`` as ``where(c, y, x)``: models often fill the entries that a mask
    excludes."""
    condition = done.get(call.inputs[0]) if call.op == "where" else None
    if condition is None or condition.op != "~":
        return [call]
    return [call.with_inputs([condition.inputs[0], *call.inputs[:0:-1]])]


def _added_mask(
    calls: Calls, operands: Sequence[Any], done: Mapping[str, TracedCall]
) -> list[TracedCall]:
    """Return the calls of the mask that stands for ``where(condition, 0, EXCLUDED)`` or the
    opposite, perhaps after moves; none for another operand."""
    added = done.get(operands[0]) if operands else None
    moves: list[TracedCall] = []
    while added is not None and added.op in ("broadcast", "reshape"):
        moves.insert(0, added)
        added = done[added.inputs[0]]
    if added is None or added.op != "where" or not isinstance(added.inputs[0], str):
        return []
    condition, *values = added.inputs
    if values not in ([0, EXCLUDED], [EXCLUDED, 0]):
        return []
    mask_calls = [done[condition]]
    if values[0] == EXCLUDED:
        mask_calls = [_opposite(calls, mask_calls[0], done)]
    for move in moves:
        mask_calls.append(
            replace(calls.on(move, [mask_calls[-1].name], move.shape), kind="boolean")
        )
    return mask_calls


def _opposite(calls: Calls, condition: TracedCall, done: Mapping[str, TracedCall]) -> TracedCall:
    """Return the call of the opposite of a condition, perhaps an earlier one."""
    op, inputs = ("!=", condition.inputs) if condition.op == "==" else ("~", (condition.name,))
    same = (c for c in done.values() if c.op == op and c.inputs == inputs)
    return next(same, calls.on(replace(condition, op=op), inputs, condition.shape))


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


def _steps(call: TracedCall) -> dict[str, Any] | None:
    """Return the formula ``arange`` of whole numbers along an axis, if they follow it."""
    assert call.values is not None
    first = call.values[0]
    numbers = call.kind != "boolean" and first.size and np.isfinite(first.ravel()[0])
    for axis, length in enumerate(call.shape if numbers else ()):
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


@dataclass(frozen=True)
class _Mask:
    """A matrix that has one number up to a diagonal, and one above it; ``shift`` is the number of
    columns between this diagonal and the main diagonal."""

    shift: int
    below: Any
    above: Any


def _mask(call: TracedCall) -> _Mask | None:
    """Return the mask that an array is in all traces, or None."""
    assert call.values is not None
    first = call.values[0]
    rows, columns = first.shape[-2:] if first.ndim > 1 else (0, 1)
    if rows != columns or call.kind == "index" or first.size == 0:
        return None
    row, column = (first.reshape(-1, rows, rows)[0][place] for place in (0, (slice(None), 0)))
    above, below = row[-1], column[-1]
    shift = int((row == below).sum()) - 1 if row[0] == below else -int((column == above).sum())
    if above == below or not all(_is_mask(v, shift, below, above) for v in call.values):
        return None
    return _Mask(shift, below.item(), above.item())


def _on_diagonal(call: TracedCall) -> Any:
    """Return the number on the diagonal of matrices that are 0 elsewhere and have a free size, or
    None."""
    assert call.values is not None
    first = call.values[0]
    if first.ndim < 2 or call.kind == "index" or not isinstance(call.shape[-1], str):
        return None
    number = first.ravel()[0].item() if first.size else 0
    equal = all(
        v.shape[-2] == v.shape[-1]
        and (v == np.where(np.eye(v.shape[-1], dtype=bool), number, 0)).all()
        for v in call.values
    )
    return number if number and equal else None


def _is_mask(values: Array, shift: int, below: Any, above: Any) -> bool:
    lower = np.tri(values.shape[-1], k=shift, dtype=bool)
    return bool((values == np.where(lower, below, above)).all())
