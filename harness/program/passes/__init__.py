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
        choices = (tuple(fused), final, moved, fuses, longest)
        return _optimised(nodes, tuple(results), builder, sizes, *choices)


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


def _optimised(
    nodes: Iterable[Node],
    results: tuple[int, ...],
    builder: Builder,
    sizes: Mapping[str, int],
    fused: tuple[str, ...],
    final: bool,
    moved: bool,
    fuses: bool,
    longest: int | None,
) -> tuple[Node, ...]:
    """Run all optimisation passes on the nodes; :func:`optimise` explains the arguments."""
    current = prune(nodes, results)
    stay = not moved and unroll.carries_much(current, builder, sizes)
    simplify, tabled = SIMPLIFY[stay], TABLES[stay]

    early = merged(fuse.rules_of(fuse.EARLY, fused), simplify)
    late, of_products = (fuse.rules_of(stage, fused) for stage in (fuse.LATE, fuse.PRODUCTS))
    # The result of the last rules, and the rules that do not change it.
    unchanged: tuple[Node, ...] = ()
    idle: tuple[Rules, ...] = ()

    def rebuild(before: tuple[Node, ...], rules: Iterable[Rules]) -> tuple[Node, ...]:
        all_rules = merged(*rules, FINAL) if final else merged(*rules)
        lifts = loops.lifts if moved else None
        sinks = loops.sinks_products if fuses else loops.sinks
        return rebuild_nodes(before, results, builder, sizes, all_rules, lifts, sinks)

    def apply_rules(before: tuple[Node, ...], *rules: Rules) -> tuple[Node, ...]:
        nonlocal unchanged, idle
        if unchanged is not before:
            unchanged, idle = before, ()
        new = [rule for rule in rules if not any(rule is other for other in idle)]
        # Idle rules are tried again only after other rules have changed something.
        if len(new) == len(rules) or (new and rebuild(before, new) != before):
            result = rebuild(before, rules)
            if result != before:
                return result
        idle = (*idle, *new)
        return before

    def with_fewest_moves(before: tuple[Node, ...]) -> tuple[Node, ...]:
        fewest = layouts.count_moved(before, builder, sizes)
        for variant in layouts.permuted_variants(before, results, builder):
            result = apply_rules(variant, tabled, transposes.SINKING)
            if layouts.count_moved(result, builder, sizes) < fewest:
                return with_fewest_moves(result)
        return before

    for rules in (early, tabled):
        current = apply_rules(current, rules)
    current = with_fewest_moves(current)
    for _ in range(3):
        current = apply_rules(current, tabled)
        joined = products.join(current, builder, sizes, fuses) if moved or stay else current
        if joined == current:
            break
        current = joined
    current = apply_rules(current, biases.RULES, tabled)
    if final:
        node_count = len(current)
        current = unroll.unrolled(current, builder, sizes, longest or unroll.LONGEST, every=moved)
        for _ in range(2 if len(current) != node_count else 1):
            current = apply_rules(current, tabled, classes.FACTORS, unroll.RULES)
        if late:
            current = rebuild(current, (late, tabled))
        if of_products:
            current = apply_rules(current, of_products, late, tabled)
    return current
