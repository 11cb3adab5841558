"""Passes over a program: compute the same values with less work."""

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
    """Merge the rules of several passes; they are tried in this order."""
    rules: dict[str, tuple[Rule, ...]] = {}
    for table in tables:
        for op, some in table.items():
            rules[op] = (*rules.get(op, ()), *some)
    return rules


def _simplify(steps: Rules) -> Rules:
    return merged(algebra.RULES, reshapes.RULES, classes.RULES, transposes.RULES, rows.RULES, steps)


# Rules by whether loops stay as they are.
SIMPLIFY = {False: _simplify(loops.RULES), True: _simplify(loops.STAYING)}
TABLES = {stay: merged(rules, loops.SCALES, tables.RULES) for stay, rules in SIMPLIFY.items()}
# Rules for nodes that nobody differentiates any more.
FINAL: Mapping[str, tuple[Rule, ...]] = {"stop_gradient": (lambda g, inputs, _: inputs[0],)}


def optimise(
    nodes: Iterable[Node],
    wanted: Iterable[int],
    builder: Builder,
    sizes: Mapping[str, int],
    fused: Iterable[str],
    *,
    final: bool = True,
    moved: bool = True,
    fuses: bool = False,
    longest: int | None = None,
) -> tuple[Node, ...]:
    """Return nodes without calls that compute the same ``wanted`` values faster.

    ``builder`` numbers new values. ``sizes`` gives a number to every size; which changes pay
    depends on them. ``fused`` names the fused operations that may be used. ``final`` is false for
    nodes that are yet to be differentiated.

    Without ``moved``, no product is joined with another or leaves its loop, because a compiler that
    fuses a product with later work may be faster so. Loops that carry much are then not unrolled,
    so that each step reuses the memory of the last. Their products are joined, because they are too
    large to be fused with later work.

    With ``fuses``, elementwise work stays in its loop, and the compiler fuses it there. Loops of
    more than ``longest`` steps, if given, are not unrolled.
    """
    with _uncollected():
        choices = (tuple(fused), final, moved, fuses, longest)
        return _optimised(nodes, tuple(wanted), builder, sizes, *choices)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Disable the garbage collector during the block. Passes make millions of objects, nearly all
    without cycles; the search for cycles took a quarter of the time of large programs."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _optimised(
    nodes: Iterable[Node],
    wanted: tuple[int, ...],
    builder: Builder,
    sizes: Mapping[str, int],
    fused: tuple[str, ...],
    final: bool,
    moved: bool,
    fuses: bool,
    longest: int | None,
) -> tuple[Node, ...]:
    current = prune(nodes, wanted)
    stay = not moved and unroll.carries_much(current, builder, sizes)
    simplify, tabled = SIMPLIFY[stay], TABLES[stay]

    early = merged(fuse.rules_of(fuse.EARLY, fused), simplify)
    late, of_products = (fuse.rules_of(found, fused) for found in (fuse.LATE, fuse.PRODUCTS))
    # The last nodes, and the rules that do not change them.
    settled: tuple[Node, ...] = ()
    idle: tuple[Rules, ...] = ()

    def rebuilt(before: tuple[Node, ...], rules: Iterable[Rules]) -> tuple[Node, ...]:
        known = merged(*rules, FINAL) if final else merged(*rules)
        lifts = loops.lifts if moved else None
        sinks = loops.sinks_products if fuses else loops.sinks
        return rebuild_nodes(before, wanted, builder, sizes, known, lifts, sinks)

    def again(before: tuple[Node, ...], *rules: Rules) -> tuple[Node, ...]:
        nonlocal settled, idle
        if settled is not before:
            settled, idle = before, ()
        new = [rule for rule in rules if not any(rule is other for other in idle)]
        # Idle rules are tried again only after other rules have changed something.
        if len(new) == len(rules) or (new and rebuilt(before, new) != before):
            found = rebuilt(before, rules)
            if found != before:
                return found
        idle = (*idle, *new)
        return before

    def less_moved(before: tuple[Node, ...]) -> tuple[Node, ...]:
        least = layouts.moved(before, builder, sizes)
        for other in layouts.turned(before, wanted, builder):
            found = again(other, tabled, transposes.SINKING)
            if layouts.moved(found, builder, sizes) < least:
                return less_moved(found)
        return before

    for rules in (early, tabled):
        current = again(current, rules)
    current = less_moved(current)
    for _ in range(3):
        current = again(current, tabled)
        joined = products.join(current, builder, sizes, fuses) if moved or stay else current
        if joined == current:
            break
        current = joined
    current = again(current, biases.RULES, tabled)
    if final:
        whole = len(current)
        current = unroll.unrolled(current, builder, sizes, longest or unroll.LONGEST, every=moved)
        for _ in range(2 if len(current) != whole else 1):
            current = again(current, tabled, classes.FACTORS, unroll.RULES)
        if late:
            current = rebuilt(current, (late, tabled))
        if of_products:
            current = again(current, of_products, late, tabled)
    return current
