"""Application of rewrite rules to a list of nodes; the results of the list stay the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.ir import Block, Node, free_values, needed, needed_nodes, reads, walk_nodes
from harness.program.passes.rewriter import MOST, LoopScope, Policy, Rewriter, Rule

# A function of (rewriter, node in the body of a loop). It returns whether the stack of the node's
# result is computed after the loop, from the stacks of its operands.
Sinks = Callable[[Rewriter, Node], bool]


@dataclass
class Rebuild:
    """A pass over a list of nodes: the rewriter emits the new nodes, and ``env`` maps old value
    numbers to new value numbers. ``sinks`` decides which operations move out of a loop, to after
    the loop."""

    rewriter: Rewriter
    sinks: Sinks | None = None
    env: dict[int, int] = field(default_factory=dict)

    def run(self, nodes: Iterable[Node], uses: Mapping[int, int]) -> None:
        """Emit all nodes again, through the rewriter's rules. ``uses`` maps a value to how often it
        is read."""
        for node in nodes:
            self.rewriter.place = node.place
            if node.op == "scan":
                self._scan(node, uses)
            else:
                inputs = tuple([self._new(i) for i in node.inputs])
                value = self.rewriter.apply(node.op, inputs, node.attributes, node)
                self._bind(node.output, value, uses)

    def _new(self, value: int) -> int:
        return self.env.get(value, value)

    def _bind(self, old: int, new: int, uses: Mapping[int, int]) -> None:
        self.env[old] = new
        uses_of_new = self.rewriter.uses
        uses_of_new[new] = uses_of_new.get(new, 0) + uses.get(old, 0)

    def _scan(self, node: Node, uses: Mapping[int, int]) -> None:
        """Emit a loop again, with its rewritten body. Operations that the rules move out of the
        loop are emitted before or after it. ``uses`` maps a value to how often it is read."""
        g, body, count = self.rewriter, node.block, node.carries
        starts = [self._new(i) for i in node.inputs[:count]]
        sequences = [self._new(i) for i in node.inputs[count:]]
        scope = g.begin()
        depth = len(g.scopes) - 1
        for value in body.inputs[:count]:
            self._bind(value, g.enter(value), uses)
        for value, sequence in zip(body.inputs[count:], sequences, strict=True):
            self._bind(value, self._slice(sequence, depth, value), uses)
        self.run(body.nodes, uses)
        after = [self._new(o) for o in body.outputs]
        carried_needs = set(after[:count]).union(
            *map(reads, needed_nodes(scope.nodes, after[:count]))
        )
        stacks = self._needed_stacks(scope, depth, after[count:], carried_needs)
        contained = find_contained(g, stacks)
        stacks = [v for v in stacks if v not in contained]
        numbers = dict(zip(after[count:], node.outputs[count:], strict=True))
        results = [
            numbers[v] if v in numbers else g.builder.value(g.stacked_type(v, sequences[0]))
            for v in stacks
        ]
        carries = [self._new(v) for v in body.inputs[:count]]
        outputs = [*after[:count], *stacks]
        g.end(node, carries, starts, outputs, [*node.outputs[:count], *results])
        for last in node.outputs[:count]:
            self._bind(last, last, uses)
        stack_of = {**scope.slices, **dict(zip(stacks, results, strict=True))}
        for value, (sequence, attributes) in contained.items():
            stack_of[value] = g.apply("slice", (stack_of[sequence],), attributes)
        for old, value in zip(node.outputs[count:], after[count:], strict=True):
            self._bind(old, self._stack_of(value, depth, stack_of, sequences[0]), uses)

    def _slice(self, sequence: int, depth: int, number: int) -> int:
        """Return the value ``x[t]``: the slice of a sequence x at the current step t of a loop. If
        the sequence is itself a slice, rewrite ``x[:, a:b][t] -> x[t][a:b]``, so that the loop
        reads the whole x.

        ``depth`` is the nesting depth of the loop, and ``number`` the value number of the slice.
        """
        g = self.rewriter
        part = g.node(sequence, "slice")
        if part is None or part.attributes["axis"] == 0:
            return g.slice_of(sequence, depth, number)
        joined = self._slice(part.inputs[0], depth, g.builder.value(g.step_type(part.inputs[0])))
        axis = part.attributes["axis"] - 1
        return g.apply("slice", (joined,), {**part.attributes, "axis": axis})

    def _needed_stacks(
        self, scope: LoopScope, depth: int, values: Sequence[int], carried_needs: set[int]
    ) -> list[int]:
        """Return the values that a loop must stack over its steps, so that the stacks of ``values``
        can be computed after the loop.

        The loop computes the values in ``carried_needs`` anyway, because its next step needs them.
        They are therefore stacked, and not computed a second time after the loop.
        """
        makers = {o: n for n in scope.nodes for o in n.outputs}
        needed: dict[int, None] = {}
        pending = list(values)
        while pending:
            value = pending.pop(0)
            if value in scope.slices or self.rewriter.depth(value) < depth:
                continue
            node = makers.get(value)
            if node is None or value in carried_needs or not self._is_sunk(node):
                needed[value] = None
            else:
                pending.extend(node.inputs)
        return list(needed)

    def _is_sunk(self, node: Node) -> bool:
        return node.op != "scan" and self.sinks is not None and self.sinks(self.rewriter, node)

    def _stack_of(self, value: int, depth: int, stacks: dict[int, int], like: int) -> int:
        """Return the stack of a value in a loop's body, i.e. the array with this value at every
        step; it is computed after the loop. ``depth`` is the nesting depth of the loop. ``like`` is
        a sequence of the loop, from which the number of steps is known. ``stacks`` maps values to
        stacks that exist already."""
        pending = [value]
        while pending:
            inner = pending[-1]
            missing = self._missing_operands(inner, depth, stacks)
            pending += missing
            if not missing:
                stacks[pending.pop()] = self._compute_stack(inner, depth, stacks, like)
        return stacks[value]

    def _missing_operands(self, value: int, depth: int, stacks: Mapping[int, int]) -> list[int]:
        """Return the operands of ``value`` whose stacks are not yet in ``stacks``. They are needed
        to compute the stack of ``value`` after the loop. The result is empty if no stack is needed.
        """
        g = self.rewriter
        if value in stacks or g.depth(value) < depth:
            return []
        return [i for i in g.made[value].inputs if g.depth(i) == depth and i not in stacks]

    def _compute_stack(self, value: int, depth: int, stacks: Mapping[int, int], like: int) -> int:
        """Compute the stack of a value in a loop's body, i.e. its values in all steps, from the
        stacks of its operands, which must be in ``stacks``.

        ``like`` is a sequence of the loop, which has the number of steps.
        """
        g = self.rewriter
        if value in stacks:
            return stacks[value]
        if g.depth(value) < depth:
            return g.emit("broadcast_to", value, shape=(g.shape(like)[0], *g.shape(value)))
        node = g.made[value]
        step = [g.depth(i) == depth for i in node.inputs]
        operands = [stacks[i] if s else i for i, s in zip(node.inputs, step, strict=True)]
        return g.batched(node.op, operands, step, node.attributes)


def find_contained(g: Rewriter, stacks: Sequence[int]) -> dict[int, tuple[int, dict[str, Any]]]:
    """Find stacks that are slices of other stacks. Return a mapping: stack -> (other stack,
    attributes of the slice)."""
    contained: dict[int, tuple[int, dict[str, Any]]] = {}
    for container in stacks:
        node = g.node(container, "concat")
        if node is None or container in contained:
            continue
        axis, ends = node.attributes["axis"], [Dim()]
        for part in node.inputs:
            ends.append(ends[-1] + g.shape(part)[axis])
        for value in stacks:
            inner = g.node(value, "concat")
            same = inner is not None and inner.attributes["axis"] == axis
            parts = inner.inputs if inner is not None and same else (value,)
            for first in range(len(node.inputs) - len(parts) + 1):
                last = first + len(parts)
                if (
                    value != container
                    and value not in contained
                    and node.inputs[first:last] == parts
                ):
                    attributes = {"axis": axis + 1, "start": ends[first], "stop": ends[last]}
                    contained[value] = (container, attributes)
    return {v: w for v, w in contained.items() if w[0] not in contained}


def rebuild_nodes(
    nodes: Iterable[Node],
    results: Iterable[int],
    builder: Builder,
    sizes: Mapping[str, int],
    rules: Mapping[str, Sequence[Rule]],
    lifts: Policy | None = None,
    sinks: Sinks | None = None,
) -> tuple[Node, ...]:
    """Rebuild nodes under rewrite rules and drop dead code. The values ``results`` keep their
    numbers.

    ``lifts`` decides which operations move to before a loop, and ``sinks`` which operations move to
    after a loop.
    """
    nodes, results = tuple(nodes), tuple(dict.fromkeys(results))
    count = sum(1 for _ in walk_nodes(nodes))
    pass_ = Rebuild(Rewriter(builder, sizes, rules, lifts, most=MOST * (1 + count)), sinks)
    pass_.run(nodes, count_uses(nodes, results))
    return _renumber_results(pass_.rewriter, {w: pass_.env.get(w, w) for w in results})


def _renumber_results(rewriter: Rewriter, results: Mapping[int, int]) -> tuple[Node, ...]:
    """Return the rewriter's nodes, renumbered so that each result has its old number."""
    names: dict[int, int] = {}
    aliases = []
    for old, new in results.items():
        if old == new:
            continue
        if new in rewriter.made and new not in names and new not in results:
            names[new] = old
        else:
            axes = tuple(range(rewriter.rank(new)))
            aliases.append(Node("permute_dims", (new,), (old,), {"axes": axes}))
    nodes = renumber(rewriter.scopes[0].nodes, names)
    return prune((*nodes, *renumber(aliases, names)), results)


def prune(nodes: Iterable[Node], results: Iterable[int]) -> tuple[Node, ...]:
    """Return the nodes on which ``results`` depend, and drop outputs of loops that nothing
    reads."""
    return needed(nodes, results, lambda node: node.outputs, reads, _pruned_loop)


def _pruned_loop(node: Node, live: set[int]) -> Node:
    """Drop carried values and stacks of a loop on which no value in ``live`` depends. If the node
    is not a loop, return it unchanged."""
    if node.op != "scan":
        return node
    body, count = node.block, node.carries
    stacks = [i for i in range(count, len(node.outputs)) if node.outputs[i] in live]
    carries = {i for i in range(count) if node.outputs[i] in live}
    while True:
        outputs = [body.outputs[i] for i in (*sorted(carries), *stacks)]
        inner = prune(body.nodes, outputs)
        read = set(free_values(Block((), inner, tuple(outputs))))
        read_carries = {i for i in range(count) if body.inputs[i] in read}
        if read_carries <= carries:
            break
        carries |= read_carries
    kept_carries = sorted(carries)
    sequences = [i for i in range(count, len(body.inputs)) if body.inputs[i] in read] or [count]
    inputs = tuple(node.inputs[i] for i in (*kept_carries, *sequences))
    block = Block(tuple(body.inputs[i] for i in (*kept_carries, *sequences)), inner, tuple(outputs))
    results = tuple(node.outputs[i] for i in (*kept_carries, *stacks))
    attributes = {**node.attributes, "carries": len(kept_carries)}
    return replace(node, inputs=inputs, outputs=results, attributes=attributes, body=block)


def count_uses(nodes: Iterable[Node], results: Iterable[int]) -> Counter[int]:
    """Count how often each value is read, also inside the bodies of loops and calls. Each value in
    ``results`` has one additional read."""

    def read(nodes: Iterable[Node]) -> Iterator[int]:
        for node in nodes:
            yield from node.inputs
            if node.body is not None:
                yield from read(node.body.nodes)
                yield from node.body.outputs

    return Counter(chain(results, read(nodes)))


def renumber(nodes: Iterable[Node], names: Mapping[int, int]) -> tuple[Node, ...]:
    """Return the nodes with new value numbers, also inside bodies; ``names`` maps old to new
    numbers."""
    result: list[Node] = []
    for node in nodes if names else ():
        body = node.body
        if body is None and names.keys().isdisjoint((*node.inputs, *node.outputs)):
            result.append(node)
            continue
        if body is not None:
            body = Block(
                tuple(names.get(v, v) for v in body.inputs),
                renumber(body.nodes, names),
                tuple(names.get(v, v) for v in body.outputs),
            )
        inputs = tuple(names.get(v, v) for v in node.inputs)
        outputs = tuple(names.get(v, v) for v in node.outputs)
        result.append(replace(node, inputs=inputs, outputs=outputs, body=body))
    return tuple(result if names else nodes)
