"""Elementwise work tile by tile: a chain of instructions on some rows while they are in the cache.

Neighbouring instructions form a chain as long as doing all of them on some rows, then on the next
rows, gives what doing them one after another on all rows gives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from harness.runtime.executor.assignment import Allocation
from harness.runtime.executor.buffers import Instruction, View

TILE = 2**16  # entries of a tile's widest result: several such arrays fit a core's cache
WORTH = 4  # times as much, and a chain goes tile by tile: below, its calls would cost more


def chains(
    instructions: Sequence[Instruction],
    ops: Collection[str],
    allocation_of: Callable[[View], Allocation | None],
) -> list[list[Instruction]]:
    """The instructions in order, neighbours that can go tile by tile together.

    ``ops`` may be done on some rows alone. ``allocation_of`` gives a view's memory; None for
    that of an input, which is never in a chain.
    """
    found: list[list[Instruction]] = []
    for instruction in instructions:
        last = found[-1] if found else []
        if (
            last
            and _divisible(instruction, ops, allocation_of)
            and _divisible(last[0], ops, allocation_of)
            and instruction.out.shape[0] == last[0].out.shape[0]
            and all(_independent(earlier, instruction, allocation_of) for earlier in last)
        ):
            last.append(instruction)
        else:
            found.append([instruction])
    return found


def tiles(
    chain: Sequence[Instruction],
    ops: Collection[str],
    allocation_of: Callable[[View], Allocation | None],
) -> list[list[Instruction]]:
    """A chain's instructions for each tile; one tile where that holds all."""
    widest = max(instruction.out.size for instruction in chain)
    if widest < WORTH * TILE or not _divisible(chain[0], ops, allocation_of):
        return [list(chain)]
    rows = chain[0].out.shape[0]
    step = max(1, rows * TILE // widest)
    return [
        [_some_rows(instruction, start, min(start + step, rows)) for instruction in chain]
        for start in range(0, rows, step)
    ]


def _some_rows(instruction: Instruction, start: int, stop: int) -> Instruction:
    inputs = tuple(
        i.narrow(0, start, stop) if isinstance(i, View) and i.shape else i
        for i in instruction.inputs
    )
    return replace(instruction, out=instruction.out.narrow(0, start, stop), inputs=inputs)


def _divisible(
    instruction: Instruction,
    ops: Collection[str],
    allocation_of: Callable[[View], Allocation | None],
) -> bool:
    shape = instruction.out.shape
    return (
        instruction.op in ops
        and len(shape) > 0
        and shape[0] > 1
        and all(r.shape == shape and allocation_of(r) is not None for r in instruction.reads())
    )


def _independent(
    earlier: Instruction, later: Instruction, allocation_of: Callable[[View], Allocation | None]
) -> bool:
    """Whether what one reads or writes never is another row of what the other writes."""
    pairs = [(earlier.out, later.out)]
    pairs += [(earlier.out, view) for view in later.reads()]
    pairs += [(view, later.out) for view in earlier.reads()]
    return all(allocation_of(a) is not allocation_of(b) or _by_rows(a, b) for a, b in pairs)


def _by_rows(a: View, b: View) -> bool:
    """Whether two views of one allocation never share memory between different rows."""
    if a.offset + _extent(a) < b.offset or b.offset + _extent(b) < a.offset:
        return True
    if a.strides[0] != b.strides[0] or a.shape[0] != b.shape[0]:
        return False
    stride = a.strides[0]
    if stride == 0:
        return False
    if (a.offset, a.shape, a.strides) == (b.offset, b.shape, b.strides):
        return True
    return a.offset // stride == b.offset // stride and all(
        r.offset % stride + _extent(r.squeeze(0)) < stride for r in (a, b)
    )


def _extent(view: View) -> int:
    """How far the last entry lies from the first."""
    return sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
