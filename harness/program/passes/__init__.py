"""Optimisation passes, which rewrite a program so that it computes the same values faster."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from harness.program.builder import Builder
from harness.program.ir import Node
from harness.program.passes import (
    algebra,
    biases,
    classes,
    fuse,
    layouts,
    loops,
    products,
    reshapes,
    rows,
    tables,
    transposes,
    unroll,
)
from harness.program.passes.rebuild import prune, rebuild_nodes
from harness.program.passes.rewriter import Rule

Rules = Mapping[str, Sequence[Rule]]


def merged(*tables: Rules) -> dict[str, tuple[Rule, ...]]:
    """Merge several tables of rewrite rules into one. The result maps an operation, e.g. ``add``,
    to its rules, which are tried in the order of ``tables``."""
    rules: dict[str, tuple[Rule, ...]] = {}
    for table in tables:
        for op, own_rules in table.items():
            rules[op] = (*rules.get(op, ()), *own_rules)
    return rules


def _simplify(steps: Rules) -> Rules:
    return merged(algebra.RULES, reshapes.RULES, classes.RULES, transposes.RULES, rows.RULES, steps)


# The rewrite rules. SIMPLIFY[True] is for programs whose products stay in their loops.
SIMPLIFY = {False: _simplify(loops.RULES), True: _simplify(loops.STAYING)}
TABLES = {stay: merged(rules, loops.SCALES, tables.RULES) for stay, rules in SIMPLIFY.items()}
# Rules for programs that are not differentiated after the passes.
FINAL: Mapping[str, tuple[Rule, ...]] = {"stop_gradient": (lambda g, inputs, _: inputs[0],)}


def optimise(
    nodes: Iterable[Node],
    results: Iterable[int],
    builder: Builder,
    sizes: Mapping[str, int],
    fused: Iterable[str],
    *,
    final: bool = True,
    moved: bool = True,
    fuses: bool = False,
    longest: int | None = None,
) -> tuple[Node, ...]:
    """Return nodes that compute the values ``results`` faster. ``nodes`` must not contain calls.

    Args:
        nodes: The operations to rewrite.
        results: The numbers of the values to compute.
        builder: It numbers new values.
        sizes: The number of every size, e.g. ``{"units": 64}``. The sizes decide which changes make
            the program faster.
        fused: The names of the fused operations that may be used, e.g. ``relu``.
        final: False if the nodes will be differentiated afterwards.
        moved: If False, matrix products stay in their loops and are not joined. This is for
            compilers that fuse a product with the operations after it. Loops that carry many
            numbers are an exception: their products are too large to be fused, so they are joined.
            These loops are not unrolled, so that each step reuses the memory of the previous step.
        fuses: True for a compiler that fuses elementwise operations in a loop. These operations
            then stay in their loop.
        longest: Loops with more steps are not unrolled; None for the default.
    """
    with _without_garbage_collector():
        run = _Optimisation(tuple(results), builder, sizes, final, moved, fuses)
        return run.run_passes(nodes, tuple(fused), longest or unroll.LONGEST)


@contextmanager
def _without_garbage_collector() -> Iterator[None]:
    """Disable Python's garbage collector during the ``with`` block. Optimisation creates millions
    of objects and almost no reference cycles; with the collector, the search for cycles took a
    quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Optimisation:
    """The passes over one program. :func:`optimise` explains the attributes."""

    def __init__(
        self,
        results: tuple[int, ...],
        builder: Builder,
        sizes: Mapping[str, int],
        final: bool,
        moved: bool,
        fuses: bool,
    ) -> None:
        self.results, self.builder, self.sizes = results, builder, sizes
        self.final, self.moved, self.fuses = final, moved, fuses
        # The nodes that the last rules returned, and the rules that do not change these nodes.
        self._unchanged: tuple[Node, ...] = ()
        self._idle: tuple[Rules, ...] = ()

    def run_passes(
        self, nodes: Iterable[Node], fused: tuple[str, ...], longest: int
    ) -> tuple[Node, ...]:
        """Return the optimised nodes. Loops of at most ``longest`` steps are unrolled."""
        current = prune(nodes, self.results)
        stay = not self.moved and unroll.carries_much(current, self.builder, self.sizes)
        tabled = TABLES[stay]
        current = self._apply(current, merged(fuse.rules_of(fuse.EARLY, fused), SIMPLIFY[stay]))
        current = self._apply(current, tabled)
        current = self._with_fewest_moves(current, tabled)
        current = self._with_joined_products(current, tabled, joins=self.moved or stay)
        current = self._apply(current, biases.RULES, tabled)
        return self._finish(current, tabled, fused, longest) if self.final else current

    def _with_fewest_moves(self, nodes: tuple[Node, ...], tabled: Rules) -> tuple[Node, ...]:
        """Permute the axes of tensors for as long as fewer numbers are then moved in memory."""
        fewest = layouts.count_moved(nodes, self.builder, self.sizes)
        for variant in layouts.permuted_variants(nodes, self.results, self.builder):
            result = self._apply(variant, tabled, transposes.SINKING)
            if layouts.count_moved(result, self.builder, self.sizes) < fewest:
                return self._with_fewest_moves(result, tabled)
        return nodes

    def _with_joined_products(
        self, nodes: tuple[Node, ...], tabled: Rules, joins: bool
    ) -> tuple[Node, ...]:
        for _ in range(3):
            nodes = self._apply(nodes, tabled)
            joined = products.join(nodes, self.builder, self.sizes, self.fuses) if joins else nodes
            if joined == nodes:
                break
            nodes = joined
        return nodes

    def _finish(
        self, nodes: tuple[Node, ...], tabled: Rules, fused: tuple[str, ...], longest: int
    ) -> tuple[Node, ...]:
        """Unroll loops, and use fused operations, in nodes that will not be differentiated."""
        current = unroll.unrolled(nodes, self.builder, self.sizes, longest, every=self.moved)
        for _ in range(2 if len(current) != len(nodes) else 1):
            current = self._apply(current, tabled, classes.FACTORS, unroll.RULES)
        late, of_products = (fuse.rules_of(stage, fused) for stage in (fuse.LATE, fuse.PRODUCTS))
        if late:
            current = self._rebuild(current, late, tabled)
        if of_products:
            current = self._apply(current, of_products, late, tabled)
        return current

    def _apply(self, before: tuple[Node, ...], *rules: Rules) -> tuple[Node, ...]:
        """Apply rules. Rules that changed nothing are tried again only after other rules have
        changed something."""
        if self._unchanged is not before:
            self._unchanged, self._idle = before, ()
        new = [rule for rule in rules if not any(rule is other for other in self._idle)]
        if len(new) == len(rules) or (new and self._rebuild(before, *new) != before):
            result = self._rebuild(before, *rules)
            if result != before:
                return result
        self._idle = (*self._idle, *new)
        return before

    def _rebuild(self, before: tuple[Node, ...], *rules: Rules) -> tuple[Node, ...]:
        all_rules = merged(*rules, FINAL) if self.final else merged(*rules)
        lifts = loops.lifts if self.moved else None
        sinks = loops.sinks_products if self.fuses else loops.sinks
        return rebuild_nodes(
            before, self.results, self.builder, self.sizes, all_rules, lifts, sinks
        )
