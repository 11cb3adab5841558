"""The shards of a run: each of several machines runs one shard, i.e. a part of the cells.

The shard of a cell depends on the names of all cells, not on their order. So each machine only
needs to know the number of its shard.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from harness.errors import UsageError, several, shorten

T = TypeVar("T")
MOST = 100_000


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of a run that is split into ``count`` parts; the first part has number 1."""

    number: int
    count: int

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a shard from a text such as ``2/4``, i.e. part 2 of 4.

        Raises:
            UsageError: the text is not a shard.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        number, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= count <= MOST:
            raise UsageError(
                f"--shard takes NUMBER/COUNT, such as 2/4 for the second of four parts, found "
                f"{shorten(repr(text))}"
            )
        return cls(number, count)

    def select(self, items: Iterable[T], name: Callable[[T], Sequence[str]], kind: str) -> list[T]:
        """Return those of ``items`` that belong to this shard, in their order. ``kind`` is a word
        for an item in the error message, e.g. "group".

        ``name`` returns the parts of an item's name. Items whose first part is the same take about
        the same time. Such items are distributed evenly over the shards. Items with equal names
        stay in one shard.

        Raises:
            UsageError: there are fewer items than shards.
        """
        items = list(items)
        if len(items) < self.count:
            raise UsageError(
                f"--shard {self}: the run has {several(len(items), kind)}, too few for "
                f"{self.count} shards; use --shard 1/{len(items)} to {len(items)}/{len(items)}"
            )
        names = sorted({(*name(item),) for item in items}, key=_sort_key)
        own_names = {*names[self.number - 1 :: self.count]}
        return [item for item in items if (*name(item),) in own_names]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def _sort_key(name: Sequence[str]) -> tuple[str, ...]:
    """Return a sort key for distributing items over shards. Items whose names have the same first
    part come together, in pseudo-random order. A random order distributes the time evenly, because
    items with similar names take about the same time."""
    import hashlib  # this import takes a tenth of the time of harness --help

    kind, *rest = name
    return kind, hashlib.sha256("\n".join(rest).encode()).hexdigest()
