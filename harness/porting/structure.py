"""Find the structure of a simplified graph: modules that occur several times become blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import takewhile
from typing import Any, TypeVar

from harness.porting.graph import ModelGraph, TracedCall

T = TypeVar("T")
# The path and the class of each module around a call, outermost first.
Modules = tuple[tuple[str, str], ...]
# Containers are never a definition: their children are read as if the container were not there.
CONTAINERS = frozenset({"Sequential", "ModuleList", "ModuleDict"})
# Calls without inputs, which each block that uses them contains.
LOCAL = frozenset({"formula", "constant", "weight"})
# Calls that only move entries.
MOVES = frozenset({"reshape", "permute", "broadcast", "slice", "select"})
# Calls that compute nothing.
SHAPES = MOVES | LOCAL | {"cast", "result"}


@dataclass(frozen=True)
class ModuleBlock:
    """An occurrence of a module that may become a definition.

    Attributes:
        path: The module's path in the model, e.g. ``transformer.h.0``; empty for the whole model.
        kind: The module's class.
        calls: The calls, in order. A ``block`` call stands for an inner block and has the name of
            its first output; ``result`` calls after it stand for the other outputs.
        inputs: The names of the values from outside, in order of first use.
        outputs: The names of the values that are used outside.
    """

    path: str
    kind: str
    calls: tuple[TracedCall, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def key(self) -> str:
        """The path and the first output, as a module may be called twice."""
        return f"{self.path}:{self.outputs[0]}"


@dataclass
class _Module:
    """A module call: its calls and inner modules, in order of execution."""

    key: str
    kind: str
    items: list[TracedCall | _Module] = field(default_factory=list)

    def calls(self) -> Iterator[TracedCall]:
        for item in self.items:
            if isinstance(item, TracedCall):
                yield item
            else:
                yield from item.calls()


def find_blocks(graph: ModelGraph) -> ModuleBlock:
    """Return the whole model as a block that contains the blocks of repeated modules."""
    graph = _move_shared_calls(graph)
    root = _Module("", "")
    by_key: dict[str, _Module] = {"": root}
    outputs = {*graph.outputs.values()}
    used = {name for call in graph.calls for name in call.sources}
    for call in graph.calls:
        if call.op in LOCAL and call.name not in outputs:
            continue
        parent = root
        # An image is permuted outside of all modules, so that the last block is like the others.
        is_last = call.name in outputs and call.name not in used
        inside = call.op != "permute" or not is_last or len(call.shape) < 4
        for key, kind in call.modules if inside else ():
            if key not in by_key:
                by_key[key] = _Module(key, kind)
                parent.items.append(by_key[key])
            parent = by_key[key]
        parent.items.append(call)
    counts: Counter[str] = Counter()
    _count_kinds(root, counts)
    return _build(root, counts, _Uses(graph), "")


def _move_shared_calls(graph: ModelGraph) -> ModelGraph:
    """Move calls that depend on no input out of a module if other modules use them too, such as the
    relative positions that the first block of T5 computes for all blocks."""
    inputs: set[str] = set()
    for call in graph.calls:
        if call.op == "input" or not inputs.isdisjoint(call.sources):
            inputs.add(call.name)
    around: dict[str, Modules] = dict.fromkeys(graph.outputs.values(), ())
    moved: list[TracedCall] = []
    others: list[TracedCall] = []
    # The values that moved calls use.
    before: set[str] = set()
    for call in reversed(graph.calls):
        modules = call.modules
        if call.name not in inputs and call.op not in LOCAL and call.name in around:
            modules = _common_start(modules, around[call.name])
        for name in call.sources:
            around[name] = _common_start(modules, around.get(name, modules))
        is_moved = modules != call.modules or call.name in before
        (moved if is_moved else others).append(replace(call, modules=modules))
        before.update(call.sources if is_moved else ())
    return replace(graph, calls=(*reversed(moved), *reversed(others)))


def _common_start(one: Sequence[T], other: Sequence[T]) -> tuple[T, ...]:
    """Return the entries at the start of both lists, such as modules around two calls."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return tuple(first for first, _ in same)


def common_owner(names: Sequence[str]) -> str:
    """Return the path of the innermost module that has all arrays with these names."""
    modules = [tuple(name.split(".")[:-1]) for name in names]
    common: tuple[str, ...] = reduce(_common_start, modules) if modules else ()
    return ".".join(common)


class _Uses:
    """The users of each call."""

    def __init__(self, graph: ModelGraph) -> None:
        self.users: dict[str, set[str]] = {}
        self.outputs = set(graph.outputs.values())
        self.by_name = graph.by_name
        for call in graph.calls:
            for name in call.sources:
                self.users.setdefault(name, set()).add(call.name)

    def results(self, names: set[str]) -> list[str]:
        """Return the calls in a set whose values are used outside of it, in order."""
        return [
            n
            for n in self.by_name
            if n in names and (self.users.get(n, set()) - names or n in self.outputs)
        ]

    def feeds_itself(self, names: set[str]) -> bool:
        """Return whether a call outside of a set depends on the set and feeds it."""
        reached: set[str] = set()
        for name, call in self.by_name.items():
            if name not in names and any(i in names or i in reached for i in call.sources):
                reached.add(name)
        return any(i in reached for n in names for i in self.by_name[n].inputs)


def _build(module: _Module, counts: Mapping[str, int], uses: _Uses, path: str) -> ModuleBlock:
    """Return the block of a module, whose inner repeated modules are blocks too."""
    calls: list[TracedCall] = []
    _collect(module, counts, uses, calls)
    return _close(path, module.kind, _in_order(calls, uses), uses)


def _in_order(calls: list[TracedCall], uses: _Uses) -> list[TracedCall]:
    """Return calls in an order in which each value is computed before its use. Calls of a module
    stay together if possible; but a module may start with its weights, before its input exists."""
    names, before = {call.name for call in calls}, set[str]()
    for call in calls:
        if not before.issuperset(names.intersection(call.sources)):
            places = {name: place for place, name in enumerate(uses.by_name)}
            return _sources_first(sorted(calls, key=lambda call: places[call.name]))
        before.add(call.name)
    return calls


def _sources_first(calls: Sequence[TracedCall]) -> list[TracedCall]:
    """Move each call after the calls whose values it uses."""
    waiting = {call.name: call for call in calls}
    ordered: list[TracedCall] = []

    def add(call: TracedCall) -> None:
        for name in call.sources:
            if name in waiting:
                add(waiting.pop(name))
        ordered.append(call)

    while waiting:
        add(waiting.pop(next(iter(waiting))))
    return ordered


def _count_kinds(module: _Module, counts: Counter[str]) -> None:
    """Count the inner modules by class, at every depth."""
    for item in module.items:
        if isinstance(item, _Module):
            counts[item.kind] += 1
            _count_kinds(item, counts)


def _collect(
    module: _Module,
    counts: Mapping[str, int],
    uses: _Uses,
    into: list[TracedCall],
) -> None:
    for item in module.items:
        if isinstance(item, TracedCall):
            into.append(item)
        elif counts[item.kind] > 1 and item.kind not in CONTAINERS and _is_block(item, uses):
            block = _build(item, counts, uses, item.key.split("@")[0])
            into += _block_calls(block, [uses.by_name[name] for name in block.outputs])
        else:
            _collect(item, counts, uses, into)


def _block_calls(block: ModuleBlock, outputs: Sequence[TracedCall]) -> list[TracedCall]:
    """Return the call of a block with these outputs, and a call for each further output."""
    (first, *others), own = outputs, {"block": block}
    call = replace(first, op="block", inputs=block.inputs, attributes=own, values=None)
    results = [
        replace(
            other, op="result", inputs=(first.name,), attributes={"number": number}, values=None
        )
        for number, other in enumerate(others, start=1)
    ]
    return [call, *results]


def _is_block(module: _Module, uses: _Uses) -> bool:
    """Return whether a module has several calls, weights, inputs, results, and can run as one
    call."""
    calls = list(module.calls())
    names = {call.name for call in calls}
    sources = [uses.by_name[n] for call in calls for n in call.sources if n not in names]
    layers = sum(c.op == "layer" for c in calls)
    others = sum(c.op not in SHAPES | {"layer"} for c in calls)
    return (
        (layers > 0 or any(source.op == "weight" for source in sources))
        and any(source.op not in LOCAL for source in sources)
        and layers + others > 1
        and (layers > 1 or others > 1)
        and bool(uses.results(names))
        and not uses.feeds_itself(names)
    )


def _close(path: str, kind: str, calls: Sequence[TracedCall], uses: _Uses) -> ModuleBlock:
    """Return a block with copies of the local calls that it uses."""
    inside = {call.name for call in calls}
    inputs: dict[str, None] = {}
    local: dict[str, TracedCall] = {}
    for call in calls:
        for name in call.sources:
            if name not in inside:
                source = uses.by_name[name]
                if source.op in LOCAL:
                    local[name] = source
                else:
                    inputs[name] = None
    everything = (*local.values(), *calls)
    results = [c for c in calls if c.op != "block"] or calls
    produced = inside | _inner_names(calls)
    outputs = uses.results(produced) or [results[-1].name]
    # The main result of a block usually has the shape of its first input.
    shape = uses.by_name[next(iter(inputs))].shape if inputs else ()
    outputs.sort(key=lambda name: uses.by_name[name].shape != shape)
    return ModuleBlock(path, kind, everything, tuple(inputs), tuple(outputs))


def _inner_names(calls: Sequence[TracedCall]) -> set[str]:
    names: set[str] = set()
    for call in calls:
        if call.op == "block":
            inner: ModuleBlock = call.attributes["block"]
            names |= {c.name for c in inner.calls if c.op not in LOCAL} | _inner_names(inner.calls)
    return names


def replace_calls(block: ModuleBlock, new: Mapping[str, Sequence[TracedCall]]) -> ModuleBlock:
    """Return a block in which some calls are replaced by others."""
    calls: list[Any] = []
    for call in block.calls:
        calls.extend(new.get(call.name, (call,)))
    return replace(block, calls=tuple(calls))
