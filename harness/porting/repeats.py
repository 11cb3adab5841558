"""Find repeated parts of a graph whose modules show no structure, such as that of an ONNX file.

A graph is cut into segments at the values that all later values depend on. A run of segments that
occurs several times becomes a module; :mod:`harness.porting.structure` makes modules definitions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from harness.porting.graph import ModelGraph, TracedCall
from harness.porting.structure import LOCAL, find_blocks

KIND = "Block"
# The most segments of a repeated run.
LONGEST = 24
# A run without branches must have this number of layers, or it stays in the equations.
CHAIN = 4

Segment = tuple[TracedCall, ...]


def find_repeats(graph: ModelGraph) -> ModelGraph:
    """Return the graph with a module around each repeated part.

    If its modules have a structure (a module has two layers, or is a block), a repeated part has
    only layers outside of modules, with names that the framework made up.
    """
    layers = Counter(m for c in graph.calls if c.op == "layer" for m in c.modules)
    has_blocks = any(call.op == "block" for call in find_blocks(graph).calls)
    has_structure = has_blocks or any(count > 1 for count in layers.values())
    if has_structure and not graph.names:
        return graph
    length = Counter(m for c in graph.calls if c.op not in LOCAL for m in c.modules)
    inside = {module for module, count in length.items() if count > 1}
    segments = list(_segments(graph))
    around: dict[str, tuple[str, str]] = {}
    names = dict(graph.names)
    signatures = [
        (number,) if has_structure and not _is_free(segment, graph, inside) else _signature(segment)
        for number, segment in enumerate(segments)
    ]
    for number, run in enumerate(_runs(signatures)):
        own = [call for n in run for call in segments[n]]
        path = _common_name(own)
        if not path or (path, KIND) in around.values():
            path = f"block_{number}"
            names[path] = ""
        around.update((call.name, (path, KIND)) for call in own)
    calls = tuple(
        replace(c, modules=(around[c.name], *c.modules)) if c.name in around else c
        for c in graph.calls
    )
    return replace(graph, calls=calls, names=names)


def _segments(graph: ModelGraph) -> Iterator[Segment]:
    """Yield the calls between values that all later values depend on."""
    calls = [c for c in graph.calls if c.op not in LOCAL]
    last = {name: number for number, call in enumerate(calls) for name in call.sources}
    last |= {name: len(calls) for name in graph.outputs.values()}
    computed = {c.name for c in calls}
    live: set[str] = set()
    segment: list[TracedCall] = []
    for number, call in enumerate(calls):
        segment.append(call)
        live.add(call.name)
        live -= {name for name in call.sources if last[name] == number and name in computed}
        if live == {call.name}:
            yield tuple(segment)
            segment = []
    if segment:
        yield tuple(segment)


def _is_free(segment: Segment, graph: ModelGraph, inside: set[tuple[str, str]]) -> bool:
    """Return whether all calls of a segment are outside of some modules, and the framework made up
    the names of all layers."""
    return all(
        inside.isdisjoint(call.modules)
        and (not call.attributes.get("weights") or graph.names.get(_owner(call)) == "")
        for call in segment
    )


def _owner(call: TracedCall) -> str:
    """Return the path of the layer whose weights a call has."""
    first = next(iter(call.attributes["weights"].values()))[0]
    return str(call.attributes.get("owner") or first.rpartition(".")[0])


def _signature(segment: Segment) -> tuple[Any, ...]:
    """Return the operators of a segment and how they are connected, without numbers."""
    place = {call.name: number for number, call in enumerate(segment)}
    return tuple(
        (
            call.op,
            call.attributes.get("layer"),
            tuple(call.attributes.get("weights", ())),
            tuple(place.get(i, -1) if isinstance(i, str) else "#" for i in call.inputs),
        )
        for call in segment
    )


def _runs(signatures: Sequence[tuple[Any, ...]]) -> list[range]:
    """Return the segments of each repeated run, in order. Runs that save most lines come first."""
    numbers = {signature: n for n, signature in enumerate(dict.fromkeys(signatures))}
    # A segment of a chosen run gets a number that occurs once.
    text = [numbers[s] for s in signatures]
    chosen: list[range] = []
    while True:
        places = _places(text)
        scores = {
            run: (len(starts) - 1) * sum(len(signatures[starts[0] + n]) for n in range(len(run)))
            for run, starts in places.items()
            if len(starts) > 1 and _is_worthwhile(signatures[starts[0] : starts[0] + len(run)])
        }
        if not scores:
            return sorted(chosen, key=lambda run: run.start)
        # A block of a ResNet ends with its activation: the long segment comes first.
        best = max(scores, key=lambda run: (scores[run], len(signatures[places[run][0]])))
        for start in places[best]:
            chosen.append(range(start, start + len(best)))
            for n in chosen[-1]:
                text[n] = -n - 1


def _places(text: Sequence[int]) -> Mapping[tuple[int, ...], list[int]]:
    """Return the starts of each run of segments that does not overlap an earlier one."""
    places: dict[tuple[int, ...], list[int]] = {}
    for length in range(1, LONGEST + 1):
        for start in range(len(text) - length + 1):
            run = tuple(text[start : start + length])
            starts = places.setdefault(run, [])
            if min(run) >= 0 and (not starts or start >= starts[-1] + length):
                starts.append(start)
    return places


def _is_worthwhile(run: Sequence[tuple[Any, ...]]) -> bool:
    """Return whether a run is a definition that makes a spec easier to read."""
    layers = [call for segment in run for call in segment if call[0] == "layer" and call[2]]
    branches = any(len(segment) > 2 for segment in run)
    return len(layers) >= (2 if branches else CHAIN)


def _common_name(calls: Sequence[TracedCall]) -> str:
    """Return the start that the names of all layers have: ``fire2`` for ``fire2_expand1x1``."""
    owners = [str(c.attributes.get("owner", "")) for c in calls if c.attributes.get("weights")]
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(min(owners), max(owners), strict=False))
    return "".join(one for one, _ in pairs).rstrip("._/")
