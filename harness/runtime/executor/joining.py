"""Join small buffers that get the same instructions, so that one call processes all of them.

An optimizer updates every parameter with the same dozen instructions. The overhead of a call takes
as long as the work on a thousand entries, so these calls take most of the time of a small model's
step. This module finds parameters whose chains of instructions are equal, places these parameters
side by side in one buffer, and makes one chain for all of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.runtime.executor.assignment import same_full_layout
from harness.runtime.executor.buffers import Buffer, Constant, Instruction, Operand, View, fresh
from harness.runtime.executor.rules import RULES

# The entries of the largest buffer that is joined. With larger buffers, a call's work takes a
# hundred times as long as its overhead.
MOST = 2**15
# The most instructions at a chain's start that other chains need not have, such as a scaling.
BEFORE = 4
# The entries of a cache line. Buffers that fill whole lines come first, so that each starts at the
# start of a line.
LINE = 16


class BufferJoiner:
    """A list of instructions in which equal chains are replaced by one chain on joined buffers: a
    joined buffer holds the buffers of all chains side by side. :meth:`place` converts a view of an
    old buffer to a view of the joined buffer."""

    def __init__(
        self, instructions: Sequence[Instruction], replaced: Mapping[Buffer, Buffer]
    ) -> None:
        self._places: dict[Buffer, View] = {}
        groups = _groups(instructions, replaced)
        joined: dict[int, list[Instruction]] = {}
        dropped: set[int] = set()
        for chains in groups:
            numbers = [n for chain in chains for n in chain.numbers]
            joined[max(numbers)] = self._joined(chains, instructions)
            dropped.update(numbers)
        self.instructions = tuple(
            instruction
            for n, old_instruction in enumerate(instructions)
            for instruction in joined.get(
                n, () if n in dropped else (self._placed(old_instruction),)
            )
        )
        self.replaced = self._replaced(replaced)

    def place(self, view: View) -> View:
        """Return a view of the same entries in the joined buffer. If the buffer of ``view`` was not
        joined, return ``view``."""
        joined = self._places.get(view.buffer)
        if joined is None:
            return view
        return replace(view, buffer=joined.buffer, offset=joined.offset + view.offset)

    def _replaced(self, replaced: Mapping[Buffer, Buffer]) -> dict[Buffer, Buffer]:
        """Convert ``replaced``, which maps a new buffer to the old buffer whose memory it should
        use, to joined buffers.

        The result has a pair of joined buffers only if each part of the new buffer replaces the
        part at the same position of the old buffer. The positions may differ if two groups of
        chains hold the same parameters in different orders.
        """
        parts: dict[tuple[Buffer, Buffer], int] = defaultdict(int)
        for new, old in replaced.items():
            at, before = (self.place(View(b, (b.size,), (1,))) for b in (new, old))
            if at.offset == before.offset and at.buffer.size == before.buffer.size:
                parts[at.buffer, before.buffer] += new.size
        return {new: old for (new, old), size in parts.items() if size == new.size}

    def _placed(self, instruction: Instruction) -> Instruction:
        inputs = tuple(self.place(i) if isinstance(i, View) else i for i in instruction.inputs)
        return replace(instruction, out=self.place(instruction.out), inputs=inputs)

    def _joined(
        self, chains: Sequence[_Chain], instructions: Sequence[Instruction]
    ) -> list[Instruction]:
        """Return a chain of instructions on joined buffers that computes what the equal ``chains``
        compute."""
        chains = sorted(chains, key=lambda chain: (chain.size % LINE > 0, chain.numbers[0]))
        size = sum(chain.size for chain in chains)
        for members in zip(*(chain.buffers for chain in chains), strict=True):
            buffer = fresh((size,), members[0].kind, role=members[0].role)
            start = 0
            for member in members:
                self._places[member] = buffer.narrow(0, start, start + member.size)
                start += member.size

        def along(view: View) -> View:
            """Return the whole joined buffer that contains ``view``. If ``view`` is a single
            number, return a view that repeats the number for all entries."""
            buffer = self._places.get(view.buffer)
            if buffer is None:
                return View(view.buffer, (size,), (0,), view.offset)
            return View(buffer.buffer, (size,), (1,))

        def operand(members: Sequence[Operand]) -> Operand:
            if isinstance(members[0], View):
                return along(members[0])
            numbers = [one.number for one in members if isinstance(one, Constant)]
            if len({*numbers}) == 1:
                return Constant(numbers[0], (size,))
            beside = fresh((size,), role="constant")
            beside.buffer.fills = tuple(zip((c.size for c in chains), numbers, strict=True))
            return beside

        joined = []
        for numbers in zip(*(chain.numbers for chain in chains), strict=True):
            equal = [instructions[n] for n in numbers]
            inputs = map(operand, zip(*(one.inputs for one in equal), strict=True))
            joined.append(replace(equal[0], out=along(equal[0].out), inputs=tuple(inputs)))
        return joined


@dataclass(frozen=True)
class _Chain:
    """A chain: instructions that use each other's results, on whole buffers of one size.

    ``numbers`` are the indices of the instructions, and ``buffers`` the buffers that they use, in
    order of use.
    """

    numbers: Sequence[int]
    buffers: Sequence[Buffer]

    @property
    def size(self) -> int:
        return self.buffers[0].size


def _groups(
    instructions: Sequence[Instruction], replaced: Mapping[Buffer, Buffer]
) -> list[list[_Chain]]:
    """Return groups of equal chains: they have the same operations, but on different buffers, e.g.
    of different parameters."""
    uses = _uses(instructions)
    alike: dict[Hashable, list[_Chain]] = defaultdict(list)
    for chain in _chains(instructions, uses):
        alike[_work_key(chain, instructions, replaced)].append(chain)
    for meaning in [*alike]:
        # Some chains begin with a scaling that others lack, for example of the gradient of a mean.
        for tails in zip(
            *(_shortened_chains(chain, instructions) for chain in alike[meaning]), strict=True
        ):
            shorter = _work_key(tails[0], instructions, replaced)
            if shorter in alike:
                alike[shorter] += tails
                del alike[meaning]
                break
    groups = (_movable(chains, instructions, uses) for chains in alike.values())
    return [group for group in groups if len(group) > 1]


def _shortened_chains(chain: _Chain, instructions: Sequence[Instruction]) -> Iterator[_Chain]:
    """Yield shorter versions of a chain: without its first instruction, without its first two, and
    so on. They may be equal to other chains although the whole chain is not.

    Stop when the removed part and the remaining chain have more than one buffer in common.
    """
    for start in range(1, min(len(chain.numbers), BEFORE + 1)):
        before, rest = (
            _chain(n, instructions) for n in (chain.numbers[:start], chain.numbers[start:])
        )
        if len({*before.buffers} & {*rest.buffers}) > 1:
            return
        yield rest


def _uses(instructions: Sequence[Instruction]) -> dict[Buffer, list[int]]:
    found: dict[Buffer, list[int]] = defaultdict(list)
    for number, one in enumerate(instructions):
        for buffer in dict.fromkeys(view.buffer for view in (*one.reads(), one.out)):
            found[buffer].append(number)
    return found


def _chains(
    instructions: Sequence[Instruction], uses: Mapping[Buffer, Sequence[int]]
) -> Iterator[_Chain]:
    """Yield chains of elementwise instructions on small buffers that are used as a whole.
    Instructions that use the same buffer belong to the same chain.

    Each chain contains a buffer whose values go from run to run, e.g. a parameter.
    """
    writers = Counter(one.out.buffer for one in instructions)
    joinable = {
        n
        for n, one in enumerate(instructions)
        if _on_whole_buffers(one) and writers[one.out.buffer] == 1
    }
    reached: set[Buffer] = set()
    for carried in [buffer for buffer in uses if buffer.role == "carried" and buffer.size > 1]:
        numbers: set[int] = set()
        near = [carried]
        while near:
            buffer = near.pop()
            if buffer in reached:
                continue
            reached.add(buffer)
            own = joinable.intersection(uses[buffer])
            numbers |= own
            near += [b for n in own for b in _buffers(instructions[n])]
        last = max(numbers, default=0)
        for number in sorted(numbers, reverse=True):
            # Leave out an instruction whose result is read only outside of the chain, and before
            # the chain ends. An example are the squares for a norm.
            readers = {*uses[instructions[number].out.buffer]} - {number}
            if readers and readers.isdisjoint(numbers) and min(readers) < last:
                numbers.remove(number)
        if numbers:
            yield _chain(sorted(numbers), instructions)


def _chain(numbers: Sequence[int], instructions: Sequence[Instruction]) -> _Chain:
    used = (buffer for n in numbers for buffer in _buffers(instructions[n]))
    return _Chain(numbers, tuple(dict.fromkeys(used)))


def _on_whole_buffers(one: Instruction) -> bool:
    """Return whether an instruction is elementwise, and uses small buffers as a whole."""
    out = one.out
    return (
        one.op not in RULES
        and out.buffer.role == "temporary"
        and 1 < out.buffer.size <= MOST
        and all(
            view.buffer.size == 1
            or (view.buffer.role in ("temporary", "carried") and same_full_layout(view, out))
            for view in one.reads()
        )
        and out.fills_buffer()
    )


def _buffers(one: Instruction) -> list[Buffer]:
    """Return the buffers that an instruction reads entry by entry, i.e. without single numbers, and
    the buffer of its result."""
    return [*(view.buffer for view in one.reads() if view.buffer.size > 1), one.out.buffer]


def _work_key(
    chain: _Chain, instructions: Sequence[Instruction], replaced: Mapping[Buffer, Buffer]
) -> Hashable:
    """Return a key for comparing chains: their operations, attributes, and which buffer each
    operation uses. Chains with equal keys may be joined."""
    places = {buffer: n for n, buffer in enumerate(chain.buffers)}

    def does(one: Instruction) -> Hashable:
        # Constants may differ between chains, such as a rate or the scale of a gradient.
        numbers = all(buffer.kind == "float" for buffer in _buffers(one))
        operands = (
            places.get(i.buffer, (i.buffer, i.offset))
            if isinstance(i, View)
            else (() if numbers else i.number)
            for i in one.inputs
        )
        return one.op, places[one.out.buffer], *operands, repr(one.attributes)

    steps = tuple(does(instructions[n]) for n in chain.numbers)
    kept = tuple((b.kind, b.role, places.get(replaced.get(b, b), -1)) for b in chain.buffers)
    return steps, kept


def _movable(
    chains: Sequence[_Chain],
    instructions: Sequence[Instruction],
    uses: Mapping[Buffer, Sequence[int]],
) -> list[_Chain]:
    """Return those of the equal ``chains`` that may run later than now, namely when the last of
    them runs.

    A chain may be moved if, until then, no other instruction reads its results, or writes to
    buffers that it has read.
    """
    end = max(chain.numbers[-1] for chain in chains)

    def waits(chain: _Chain) -> bool:
        numbers = set(chain.numbers)
        made = {instructions[n].out.buffer for n in numbers}
        for buffer in chain.buffers:
            first = next(n for n in uses[buffer] if n in numbers)
            for n in uses[buffer]:
                written = instructions[n].out.buffer is buffer
                if first < n < end and n not in numbers and (written or buffer in made):
                    return False
        return True

    return [chain for chain in chains if waits(chain)]
