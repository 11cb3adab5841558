"""Assignment of memory to buffers, which reuses free memory and updates in place if that is
safe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.program.ir import Kind
from harness.runtime.executor.buffers import Buffer, Instruction, View


@dataclass(eq=False, slots=True)
class Allocation:
    """A piece of memory with ``size`` entries, which several buffers may use one after another."""

    size: int
    kind: Kind


@dataclass
class Life:
    """The indices of the first and the last instruction that uses a buffer, and of the instructions
    that write it."""

    first: int
    last: int
    writers: list[int] = field(default_factory=list)


def lives(
    instructions: Sequence[Instruction], result_buffers: Iterable[Buffer]
) -> dict[Buffer, Life]:
    """Return the :class:`Life` of each buffer. The buffers ``result_buffers`` stay in use until the
    end."""
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
    """The allocation of every buffer except the buffers of inputs.

    Each buffer in ``carried`` has an allocation that it shares only with its replacement, even if
    no instruction reads the buffer. ``replaced`` maps a new buffer to the old buffer whose memory
    it should take over. ``aliases`` gives, by operation, the positions of the inputs whose memory
    the result may take over. Such an input must have the layout of the result, and no later
    instruction may read it.
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
        """Return the allocation that holds a view, or None for a view of an input."""
        return self.allocations.get(view.buffer)

    def in_place(self, index: int, buffer: Buffer) -> bool:
        """Return whether an instruction may write its result over the buffer of an input."""
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
        """Give the buffer ``new`` the memory of ``old`` if no instruction needs ``old`` any more.

        Then give the same memory to an input from which ``new`` is computed, and so on.
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
        """Return the temporary inputs of an instruction that it may overwrite with its result."""
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
        """Return the smallest free allocation that fits the buffer and is at most twice as large as
        it.

        If several are equally small, return the one that became free last. If none fits, return a
        new one.
        """
        free = self._free[buffer.kind]
        fitting = [b for b in free if buffer.size <= b.size <= 2 * buffer.size]
        if not fitting:
            return Allocation(buffer.size, buffer.kind)
        best = min(reversed(fitting), key=lambda allocation: allocation.size)
        free.remove(best)
        return best


def same_full_layout(operand: View, out: View) -> bool:
    """Return whether two views cover their whole buffers, in the same layout."""
    return operand.fills_buffer() and out.fills_buffer() and operand.has_layout_of(out)
