"""The search: sizes are halved and nodes left out as long as the failure stays one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from harness.checking.reduction.failure import Failure, resized
from harness.checking.reduction.segments import ALONG, segment
from harness.language.size_expressions import FREE_SIZES

# Whether a failure is one still.
Differs = Callable[[Failure], bool]
# Rounds over all sizes and nodes: what one makes smaller may let another be.
ROUNDS = 4


@dataclass
class Search:
    """One search, of at most so many seconds; ``tried`` counts the passes that were run, of which
    each is shown before it begins."""

    differs: Differs
    seconds: float
    show: Callable[[int, Failure], None] = lambda tried, candidate: None
    tried: int = 0
    _end: float = field(init=False)

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.seconds

    @property
    def over(self) -> bool:
        """Whether the time is up: what was found by then is the answer."""
        return time.monotonic() > self._end

    def smallest(self, failure: Failure) -> Failure:
        """A failure from which no size and no node can be taken, as far as was tried."""
        for _ in range(ROUNDS):
            before = measure(failure)
            failure = self._nodes(self._sizes(failure))
            if measure(failure) == before or self.over:
                break
        return failure

    def _sizes(self, failure: Failure) -> Failure:
        """With smaller sizes: those first that arrays decide, then the largest."""
        sizes = failure.sizes
        order = sorted(sizes, key=lambda name: (name not in FREE_SIZES, -sizes[name], name))
        for name in order:
            failure = self._size(failure, name)
        return failure

    def _size(self, failure: Failure, name: str) -> Failure:
        """Delta debugging of one size: as much is taken away as can be, halves first."""
        size = failure.sizes.get(name, 1)
        smallest = self._accepted(resized(failure, name, 1, first=f) for f in (True, False))
        if size > 1 and smallest is not None:
            return smallest
        step = size // 2
        while step and not self.over:
            size = failure.sizes.get(name, 1)
            if size - step < 1:
                step = min(step // 2, size - 1)
                continue
            smaller = self._accepted(
                resized(failure, name, size - step, first=f) for f in (True, False)
            )
            if smaller is None:
                step //= 2
            else:
                failure = smaller
        return failure

    def _nodes(self, failure: Failure) -> Failure:
        """One node alone that is wrong, or a part of the program that is."""
        count = len(failure.program.nodes)
        if count < 2 or any(p.name.startswith(ALONG) for p in failure.program.inputs):
            return failure  # it is one part already
        order = sorted(range(count), key=lambda n: failure.program.nodes[n].op != "call")
        alone = self._accepted(segment(failure, n, n + 1) for n in order)
        if alone is not None:
            return alone
        start, stop = 0, count
        step = count // 2
        while step and not self.over:
            parts = ((start + step, stop), (start, stop - step))
            smaller = next(
                (
                    part
                    for part in parts
                    if part[0] < part[1] and self._stays(segment(failure, *part))
                ),
                None,
            )
            if smaller is None:
                step //= 2
            else:
                start, stop = smaller
        if (start, stop) == (0, count):
            return failure
        return segment(failure, start, stop) or failure

    def _accepted(self, candidates: Iterator[Failure | None]) -> Failure | None:
        """The first candidate that is still a failure."""
        return next((c for c in candidates if c is not None and self._stays(c)), None)

    def _stays(self, candidate: Failure | None) -> bool:
        if candidate is None or self.over:
            return False
        self.tried += 1
        self.show(self.tried, candidate)
        return self.differs(candidate)


def measure(failure: Failure) -> tuple[int, int]:
    """How large a failure is: numbers, then operations."""
    material = failure.run.material
    groups = (
        material.parameters,
        material.statistics,
        material.inputs,
        material.state,
        material.targets,
    )
    return sum(a.size for group in groups for a in group.values()), len(failure.program.nodes)
