"""How a pass parts from the oracle, value by value: what a picture of it needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.results.divergence import Divergence, Link

if TYPE_CHECKING:
    from harness.checking.first_difference import TracedPart
    from harness.language.model import Spec

# Lines above and below the one that is shown, and values that are kept of a long model.
AROUND, MOST = 2, 60


def divergence(
    judged: Sequence[tuple[TracedPart, float]], first: TracedPart, place: str, spec: Spec
) -> Divergence:
    """What became of every value of a trace, by its parts and what each may be off by.

    ``first`` is the first wrong part; ``place`` is ``file:line`` of its equation, or empty.
    """
    links: dict[str, Link] = {}
    steps = []
    for part, allowed in judged:
        error = math.inf if part.reason else part.error
        before = links.get(part.name)
        if before is None or error / allowed > before.error / before.allowed:
            links[part.name] = Link(value=part.name, error=float(error), allowed=float(allowed))
        if part.name == first.name and part.step is not None:
            steps.append((part.step, error, allowed))
    shown = _around(list(links.values()), first.name)
    return Divergence(
        first=first.name, links=tuple(shown), steps=tuple(steps), **_excerpt(place, spec)
    )


def _around(links: Sequence[Link], first: str) -> Sequence[Link]:
    at = next(n for n, link in enumerate(links) if link.value == first)
    start = max(0, min(at - MOST // 2, len(links) - MOST))
    return links[start : start + MOST]


def _excerpt(place: str, spec: Spec) -> Mapping[str, Any]:
    file, _, line = place.rpartition(":")
    lines = spec.document.lines if file == spec.document.file else spec.library.lines(file)
    if not lines or not line.isdecimal():
        return {}
    at = int(line)
    start = max(1, at - AROUND)
    return {
        "file": file,
        "line": at,
        "start": start,
        "lines": tuple(lines[start - 1 : at + AROUND]),
    }
