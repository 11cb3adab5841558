"""An executor runs a plan (a list of operations for fixed sizes) on a framework that runs eagerly.

The executor decides everything in advance that does not depend on the data. It unrolls loops, and
assigns preallocated memory to every value. Operations that only make a view of memory cost nothing.
All other operations become calls with bound arguments, i.e. calls that already hold the tensors
that they read and write. Running the executor makes these calls in order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any, Protocol

from harness.program.ir import Kind, needed
from harness.program.plan import Plan
from harness.runtime.executor.assignment import Allocation, MemoryPlan, same_full_layout
from harness.runtime.executor.buffers import Buffer, Constant, Instruction, View
from harness.runtime.executor.joining import BufferJoiner
from harness.runtime.executor.linearize import Flattener
from harness.runtime.executor.tiling import chains, tiles

Call = Callable[[], object]
Tensors = dict[str, Any]

# The largest number of batches whose calls stay bound. Using one of these batches again costs
# nothing.
KEPT = 16


def in_turn(*calls: Call) -> Call:
    """Return a function without arguments that makes all the given calls in order."""

    def run() -> None:
        for call in calls:
            call()

    return run


class Kernels(Protocol):
    """The operations that a framework provides for an executor.

    ``table[op](out, *inputs, **attributes)`` returns a function without arguments that writes the
    result to ``out``. Inputs are tensors, or plain numbers for constants.

    Each operation gets its inputs in a fixed layout:

    - Elementwise operations get inputs in the shape of ``out``.
    - ``matmul`` and ``addmm`` get matrices or stacks of matrices.
    - ``sum`` and ``max`` get matrices and reduce the last axis.
    - ``softmax``, ``log_sum_exp``, ``take_along_axis`` and ``scatter_add`` get matrices and work
      row by row.
    - ``take`` and ``segment_sum`` get a matrix of rows, and indices with one axis.

    The caller has checked that indices are in range. ``aliases`` maps an operation to the positions
    of the inputs that may share memory with ``out``. ``tiled`` names the operations that are faster
    if they run on a few rows at a time.
    """

    tiled: Collection[str]
    table: Mapping[str, Callable[..., Call]]
    aliases: Mapping[str, frozenset[int]]

    def memory(self, size: int, kind: Kind) -> Any:
        """Return uninitialised memory for ``size`` entries of a ``kind`` (e.g. "float"), as a
        tensor with one axis."""

    def view(self, memory: Any, shape: Sequence[int], strides: Sequence[int], offset: int) -> Any:
        """Return a view of ``memory``, a tensor with one axis; ``strides`` and ``offset`` are
        counted in entries, not bytes."""

    def flat(self, tensor: Any, shape: Sequence[int], kind: Kind) -> tuple[Any, bool]:
        """Return two values: a tensor with one axis that has the entries of ``tensor``, and True if
        it shares the memory of ``tensor``.

        If the axes of ``tensor`` are not in C order, the result is a copy.

        Raises:
            ValueError: the tensor does not have the given ``shape`` or ``kind`` (e.g. "float").
        """

    def copy(self, out: Any, tensor: Any) -> None:
        """Copy a tensor's entries to ``out``."""

    def run(self, calls: Iterable[Call]) -> None:
        """Make the calls (functions without arguments) in order."""


class Executor:
    """A plan that is prepared to run: a function from inputs by name to outputs by name.

    The inputs that a step replaces, e.g. parameters (the plan's ``carried``), are copied into the
    executor's own memory. The results that replace them are written to the same memory. If the
    caller passes such a result back as input, the executor copies nothing. It never writes to other
    inputs. Results are valid until the next call.
    """

    def __init__(self, plan: Plan, kernels: Kernels) -> None:
        flattener = Flattener(plan)
        results = flattener.results
        result_buffers = [view.buffer for view in results.values()]
        instructions = needed(
            flattener.instructions,
            result_buffers,
            lambda instruction: [instruction.out.buffer],
            lambda instruction: [view.buffer for view in instruction.reads()],
        )
        homes = {name: flattener.inputs[given] for name, given in plan.carried.items()}
        replaced: dict[Buffer, Buffer] = {}
        for name, home in homes.items():
            if same_full_layout(results[name], home):
                replaced.setdefault(results[name].buffer, home.buffer)
        joined = BufferJoiner(instructions, replaced)
        instructions = joined.instructions
        results, homes, inputs = (
            {name: joined.place(view) for name, view in views.items()}
            for views in (results, homes, flattener.inputs)
        )
        result_buffers = [view.buffer for view in results.values()]
        carried = [view.buffer for view in homes.values()]
        memory = MemoryPlan(instructions, result_buffers, carried, joined.replaced, kernels.aliases)
        for name, home in homes.items():
            result = results[name]
            same = memory.allocations[result.buffer] is memory.allocations[home.buffer]
            if not (same and result.has_layout_of(home)):
                instructions += (Instruction("copy", home, (result,)),)
        self._kernels = kernels
        instruction_chains = chains(instructions, kernels.tiled, memory.allocation_of)
        self._tiles = [
            tiles(chain, kernels.tiled, memory.allocation_of) for chain in instruction_chains
        ]
        self._allocations = memory.allocations
        self._memory: dict[Allocation, Any] = {}
        self._tensors: dict[View, Any] = {}
        self._given: dict[Buffer, Any] = {}
        self._results = {n: self._tensor(homes.get(n, r)) for n, r in results.items()}
        self._carried = {
            name: self._tensor(view)
            for name, view in inputs.items()
            if view.buffer in memory.allocations
        }
        self._bind(inputs)

    def _bind(self, inputs: Mapping[str, View]) -> None:
        """Make the calls that read no input of the plan; they can be bound now, i.e. hold the
        tensors that they read and write. Store the instructions that read an input, to bind them
        when the input is known."""
        self._calls: list[Call] = []
        self._reading: dict[int, Instruction] = {}
        for parts in self._tiles:
            read = {r.buffer for i in parts[0] for r in i.reads() if r.buffer.role == "input"}
            if read:
                (instruction,) = (i for part in parts for i in part)
                self._reading[len(self._calls)] = instruction
                self._calls.append(_unbound)
            else:
                self._calls += [self._call(i) for part in parts for i in part]
        read = {r.buffer for i in self._reading.values() for r in i.reads()}
        self._inputs = {
            name: view
            for name, view in inputs.items()
            if view.buffer.role == "input" and view.buffer in read
        }
        self._bound: dict[tuple[int, ...], _Bound] = {}
        self._copied: _Bound | None = None

    def __call__(self, inputs: Tensors) -> Tensors:
        """Run the plan once.

        Raises:
            KeyError: an input is missing.
            ValueError: an input has another shape or dtype than the plan expects.
        """
        # Use map: a loop over the names would take a tenth of a small model's step.
        named = inputs.__getitem__
        if not all(map(is_, map(named, self._carried), self._carried.values())):
            for name, own in self._carried.items():
                if inputs[name] is not own:
                    self._kernels.copy(own, inputs[name])
        given = [*map(named, self._inputs)]
        bound = self._bound.get(tuple(map(id, given))) or self._bind_to(given)
        self._kernels.run(bound.calls)
        return dict(self._results)

    def _bind_to(self, given: Sequence[Any]) -> _Bound:
        """Return all calls, bound to the inputs ``given`` or to copies of them.

        A bound call holds the tensors that it reads and writes. If the caller passes inputs that
        are bound already, no work is needed. After :data:`KEPT` different lists of inputs, the
        executor copies further inputs to a fixed place, because then the caller seems to pass new
        inputs in each call. It also copies the inputs if one of them is not in C order.
        """
        flats, in_place = [], len(self._bound) < KEPT
        for view, tensor in zip(self._inputs.values(), given, strict=True):
            flat, same = self._kernels.flat(tensor, view.shape, view.buffer.kind)
            flats.append(flat)
            in_place = in_place and same
        if in_place:
            bound = self._bound[tuple(map(id, given))] = _Bound(self._calls_on(flats), given)
            return bound
        if self._copied is None:
            buffers = [view.buffer for view in self._inputs.values()]
            copies = [self._kernels.memory(b.size, b.kind) for b in buffers]
            self._copied = _Bound(self._calls_on(copies), copies)
        for copy, flat in zip(self._copied.given, flats, strict=True):
            self._kernels.copy(copy, flat)
        return self._copied

    def _calls_on(self, flats: Sequence[Any]) -> list[Call]:
        for view, flat in zip(self._inputs.values(), flats, strict=True):
            self._given[view.buffer] = flat
        calls = list(self._calls)
        for index, instruction in self._reading.items():
            calls[index] = self._call(instruction)
        return calls

    def _call(self, instruction: Instruction) -> Call:
        inputs = [
            i.number if isinstance(i, Constant) else self._tensor(i) for i in instruction.inputs
        ]
        out = self._tensor(instruction.out)
        return self._kernels.table[instruction.op](out, *inputs, **instruction.attributes)

    def _tensor(self, view: View) -> Any:
        buffer = view.buffer
        if buffer.role == "input":
            return self._kernels.view(
                self._given[buffer], view.shape, view.plain_strides(), view.offset
            )
        if view not in self._tensors:
            allocation = self._allocations[buffer]
            if allocation not in self._memory:
                memory = self._kernels.memory(allocation.size, allocation.kind)
                self._memory[allocation] = memory
                start = 0
                for count, number in buffer.fills:
                    part = self._kernels.view(memory, (count,), (1,), start)
                    self._kernels.run([self._kernels.table["copy"](part, number)])
                    start += count
            self._tensors[view] = self._kernels.view(
                self._memory[allocation], view.shape, view.plain_strides(), view.offset
            )
        return self._tensors[view]


@dataclass(frozen=True)
class _Bound:
    """Calls that hold the input tensors ``given``. This object keeps these tensors alive, so that
    no new tensor can get the ``id`` of one of them."""

    calls: Sequence[Call]
    given: Sequence[Any]


def _unbound() -> None:
    """Take the place of a call whose inputs are not known yet."""
    raise AssertionError("an input of this call was never bound")
