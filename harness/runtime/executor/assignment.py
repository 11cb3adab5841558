"""Assignment of memory to buffers (the values of a plan). Memory that is free is used again, and a
result is written over an input if that is safe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.program.ir import Kind
from harness.runtime.executor.buffers import Buffer, Instruction, View


@dataclass(eq=False, slots=True)
class Allocation:
    """A piece of memory with ``size`` entries. Several buffers may use it, one after another."""

    size: int
    kind: Kind


@dataclass
class Life:
    """The time during which a buffer is used: the indices of the first and the last instruction
    that uses it, and of the instructions that write it."""

    first: int
    last: int
    writers: list[int] = field(default_factory=list)


def lives(
    instructions: Sequence[Instruction], result_buffers: Iterable[Buffer]
) -> dict[Buffer, Life]:
    """Return a dictionary from buffer to the instructions that use it (:class:`Life`). The buffers
    ``result_buffers`` are in use until the end."""
    lives_by_buffer: dict[Buffer, Life] = {}
    for index, instruction in enumerate(instructions):
        for view in instruction.reads():
            lives_by_buffer.setdefault(view.buffer, Life(index, index)).last = index
        life = lives_by_buffer.setdefault(instruction.out.buffer, Life(index, index))
        life.last = index
        life.writers.append(index)
    for buffer in result_buffers:
        lives_by_buffer.setdefault(buffer, Life(0, 0)).last = len(instructions)
    return lives_by_buffer


class MemoryPlan:
    """The assignment of memory: ``allocations`` maps every buffer, except the buffers of inputs, to
    its memory.

    - The buffers in ``carried`` hold values that go from run to run, e.g. parameters. Such a buffer
      shares its memory only with the buffer that replaces it.
    - ``replaced`` maps a new buffer to the old buffer whose memory it should use, e.g. the new
      parameters to the old parameters.
    - ``aliases`` maps an operation to the positions of the inputs over which the result may be
      written. Such an input must have the layout of the result, and no later instruction may read
      it.
    """

    def __init__(
        self,
        instructions: Sequence[Instruction],
        result_buffers: Iterable[Buffer],
        carried: Iterable[Buffer],
        replaced: Mapping[Buffer, Buffer],
        aliases: Mapping[str, frozenset[int]],
    ) -> None:
        self.instructions, self.aliases = instructions, aliases
        self.lives = lives(instructions, result_buffers)
        self.allocations: dict[Buffer, Allocation] = {}
        self._free: dict[Kind, list[Allocation]] = defaultdict(list)
        for buffer in (*self.lives, *carried):
            if buffer.role in ("carried", "constant") and buffer not in self.allocations:
                self.allocations[buffer] = Allocation(buffer.size, buffer.kind)
        for new, old in replaced.items():
            self._replace(new, old)
        self._assign()

    def allocation_of(self, view: View) -> Allocation | None:
        """Return the memory that holds a view; return None for a view of an input."""
        return self.allocations.get(view.buffer)

    def in_place(self, index: int, buffer: Buffer) -> bool:
        """Return whether the instruction with this index may write its result over ``buffer``, one
        of its inputs."""
        instruction = self.instructions[index]
        allowed = self.aliases.get(instruction.op, frozenset())
        return (buffer.size, buffer.kind) == (
            instruction.out.buffer.size,
            instruction.out.buffer.kind,
        ) and all(
            position in allowed and same_full_layout(operand, instruction.out)
            for position, operand in enumerate(instruction.inputs)
            if isinstance(operand, View) and operand.buffer is buffer
        )

    def _replace(self, new: Buffer, old: Buffer) -> None:
        """Give the buffer ``new`` the memory of the buffer ``old``, if no instruction reads ``old``
        any more when ``new`` is written.

        Then give the same memory to an input from which ``new`` is computed, if that input is not
        needed afterwards, and so on.
        """
        end = self.lives[old].last if old in self.lives else -1
        while new.role == "temporary" and new not in self.allocations:
            start = self.lives[new].first
            fits = (new.size, new.kind) == (old.size, old.kind)
            if not fits or end > start or (end == start and not self.in_place(start, old)):
                return
            self.allocations[new] = self.allocations[old]
            new = next(iter(self._overwritable_inputs(start)), new)

    def _overwritable_inputs(self, index: int) -> list[Buffer]:
        """Return the inputs over which the instruction with this index may write its result:
        temporary values that no later instruction reads."""
        read = dict.fromkeys(view.buffer for view in self.instructions[index].reads())
        return [
            buffer
            for buffer in read
            if buffer.role == "temporary"
            and self.lives[buffer].last == index
            and self.in_place(index, buffer)
        ]

    def _assign(self) -> None:
        pooled: set[Allocation] = set()
        for index, instruction in enumerate(self.instructions):
            out = instruction.out.buffer
            heirs = [b for b in self._overwritable_inputs(index) if self.allocations[b] in pooled]
            if out not in self.allocations:
                self.allocations[out] = (
                    self.allocations[heirs[0]] if heirs else self._reuse_allocation(out)
                )
                pooled.add(self.allocations[out])
            for buffer in dict.fromkeys(view.buffer for view in instruction.reads()):
                allocation = self.allocations.get(buffer)
                dead = self.lives[buffer].last == index and buffer.role == "temporary"
                if dead and allocation in pooled and allocation is not self.allocations[out]:
                    assert allocation is not None
                    self._free[allocation.kind].append(allocation)

    def _reuse_allocation(self, buffer: Buffer) -> Allocation:
        """Return free memory for a buffer: the smallest that fits and is at most twice as large as
        the buffer.

        If several pieces are equally small, return the piece that became free last. If none fits,
        return new memory.
        """
        free = self._free[buffer.kind]
        fitting = [b for b in free if buffer.size <= b.size <= 2 * buffer.size]
        if not fitting:
            return Allocation(buffer.size, buffer.kind)
        best = min(reversed(fitting), key=lambda allocation: allocation.size)
        free.remove(best)
        return best


def same_full_layout(operand: View, out: View) -> bool:
    """Return whether two views cover their whole buffers, and have the same shape and strides."""
    return operand.fills_buffer() and out.fills_buffer() and operand.has_layout_of(out)
