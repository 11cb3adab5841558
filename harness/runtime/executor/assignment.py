"""Which memory each buffer gets: reused when its value is dead, updated in place where safe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.program.ir import Kind
from harness.runtime.executor.buffers import Buffer, Instruction, Region


@dataclass(eq=False, slots=True)
class Block:
    """A piece of real memory of ``size`` entries, which several buffers use one after another."""

    size: int
    kind: Kind


@dataclass
class Life:
    """The instructions that first write, first read, last write and last use a buffer."""

    first: int
    last: int
    writers: list[int] = field(default_factory=list)


def needed(
    instructions: Sequence[Instruction], wanted: Iterable[Buffer]
) -> tuple[Instruction, ...]:
    """Only the instructions whose buffers are read later or wanted."""
    live = set(wanted)
    kept = []
    for instruction in reversed(instructions):
        if instruction.out.buffer in live:
            kept.append(instruction)
            live.update(region.buffer for region in instruction.reads())
    return tuple(reversed(kept))


def lives(instructions: Sequence[Instruction], wanted: Iterable[Buffer]) -> dict[Buffer, Life]:
    """When each buffer is in use; a wanted one to the end."""
    found: dict[Buffer, Life] = {}
    for index, instruction in enumerate(instructions):
        for region in instruction.reads():
            found.setdefault(region.buffer, Life(index, index)).last = index
        life = found.setdefault(instruction.out.buffer, Life(index, index))
        life.last = index
        life.writers.append(index)
    for buffer in wanted:
        found.setdefault(buffer, Life(0, 0)).last = len(instructions)
    return found


class Memory:
    """Assigns a block to every buffer but the inputs.

    ``aliases`` gives, by op, the positions of the inputs whose memory its result may have, if it
    is read nowhere later and lies there in the same way.
    """

    def __init__(
        self,
        instructions: Sequence[Instruction],
        wanted: Iterable[Buffer],
        replaced: Mapping[Buffer, Buffer],
        aliases: Mapping[str, frozenset[int]],
    ) -> None:
        self.instructions, self.aliases = instructions, aliases
        self.lives = lives(instructions, wanted)
        self.blocks: dict[Buffer, Block] = {}
        self._free: dict[Kind, list[Block]] = defaultdict(list)
        for buffer in (*self.lives, *replaced.values()):
            if buffer.role in ("carried", "constant") and buffer not in self.blocks:
                self.blocks[buffer] = Block(buffer.size, buffer.kind)
        for new, old in replaced.items():
            self._replace(new, old)
        self._assign()

    def block_of(self, region: Region) -> Block | None:
        """The block that a region lies in; None for an input's."""
        return self.blocks.get(region.buffer)

    def in_place(self, index: int, buffer: Buffer) -> bool:
        """Whether an instruction may write its result over an input's buffer."""
        instruction = self.instructions[index]
        allowed = self.aliases.get(instruction.op, frozenset())
        return (buffer.size, buffer.kind) == (
            instruction.out.buffer.size,
            instruction.out.buffer.kind,
        ) and all(
            position in allowed and lies_alike(operand, instruction.out)
            for position, operand in enumerate(instruction.inputs)
            if isinstance(operand, Region) and operand.buffer is buffer
        )

    def _replace(self, new: Buffer, old: Buffer) -> None:
        """Have ``new`` in the memory of ``old``, and what ``new`` is made of in place as well."""
        end = self.lives[old].last if old in self.lives else -1
        while new.role == "temporary" and new not in self.blocks:
            start = self.lives[new].first
            fits = (new.size, new.kind) == (old.size, old.kind)
            if not fits or end > start or (end == start and not self.in_place(start, old)):
                return
            self.blocks[new] = self.blocks[old]
            new = next(iter(self._heirs(start)), new)

    def _heirs(self, index: int) -> list[Buffer]:
        """The temporary inputs that an instruction may write over."""
        read = dict.fromkeys(region.buffer for region in self.instructions[index].reads())
        return [
            buffer
            for buffer in read
            if buffer.role == "temporary"
            and self.lives[buffer].last == index
            and self.in_place(index, buffer)
        ]

    def _assign(self) -> None:
        pooled: set[Block] = set()
        for index, instruction in enumerate(self.instructions):
            out = instruction.out.buffer
            heirs = [b for b in self._heirs(index) if self.blocks[b] in pooled]
            if out not in self.blocks:
                self.blocks[out] = self.blocks[heirs[0]] if heirs else self._take(out)
                pooled.add(self.blocks[out])
            for buffer in dict.fromkeys(region.buffer for region in instruction.reads()):
                block = self.blocks.get(buffer)
                dead = self.lives[buffer].last == index and buffer.role == "temporary"
                if dead and block in pooled and block is not self.blocks[out]:
                    assert block is not None
                    self._free[block.kind].append(block)

    def _take(self, buffer: Buffer) -> Block:
        """The smallest free block that is not much too large, of these the one freed last."""
        free = self._free[buffer.kind]
        fitting = [b for b in free if buffer.size <= b.size <= 2 * buffer.size]
        if not fitting:
            return Block(buffer.size, buffer.kind)
        best = min(reversed(fitting), key=lambda block: block.size)
        free.remove(best)
        return best


def lies_alike(operand: Region, out: Region) -> bool:
    """Whether both are whole buffers, laid out in the same way."""
    return operand.fills_buffer() and out.fills_buffer() and operand.lies_as(out)
