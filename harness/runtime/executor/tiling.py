"""Run elementwise instructions tile by tile, so that their data stay in the processor's cache.

A tile is a range of rows. Neighbouring instructions form a chain if they may run tile by tile: all
instructions on the first rows, then all on the next rows. The result must be the same as if each
instruction ran on all rows before the next instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from harness.runtime.executor.assignment import Allocation
from harness.runtime.executor.buffers import Instruction, View

TILE = 2**16  # entries of a tile's largest result; several such arrays fit into a core's cache
WORTH = 4  # a chain with fewer tiles is not split, because the calls would cost more


def chains(
    instructions: Sequence[Instruction],
    ops: Collection[str],
    allocation_of: Callable[[View], Allocation | None],
) -> list[list[Instruction]]:
    """Group neighbouring instructions into chains that can run tile by tile: all instructions of a
    chain on the first rows, then all on the next rows. Return the chains in order.

    Only operations in ``ops`` can run on some of the rows. ``allocation_of`` returns the memory of
    a view, or None for an input. An instruction that reads an input is a chain of its own.
    """
    groups: list[list[Instruction]] = []
    for instruction in instructions:
        last = groups[-1] if groups else []
        if (
            last
            and _divisible(instruction, ops, allocation_of)
            and _divisible(last[0], ops, allocation_of)
            and instruction.out.shape[0] == last[0].out.shape[0]
            and all(_independent(earlier, instruction, allocation_of) for earlier in last)
        ):
            last.append(instruction)
        else:
            groups.append([instruction])
    return groups


def tiles(
    chain: Sequence[Instruction],
    ops: Collection[str],
    allocation_of: Callable[[View], Allocation | None],
) -> list[list[Instruction]]:
    """Return one list of instructions per tile (a range of rows): the instructions of ``chain``,
    restricted to these rows. A small chain is one tile."""
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
    """Return whether two instructions can run tile by tile: both on the first rows, then both on
    the next rows.

    They cannot if one of them writes a row of memory that the other reads or writes as a row with
    another number.
    """
    pairs = [(earlier.out, later.out)]
    pairs += [(earlier.out, view) for view in later.reads()]
    pairs += [(view, later.out) for view in earlier.reads()]
    return all(allocation_of(a) is not allocation_of(b) or _by_rows(a, b) for a, b in pairs)


def _by_rows(a: View, b: View) -> bool:
    """Return whether row i of one view shares memory only with row i of the other view, for all i.
    The two views are in the same allocation."""
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
    """Return the distance in memory, in entries, from the view's first entry to its last."""
    return sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
