"""Shards of a run: the part of a plan that each of several machines takes.

A unit's shard does not depend on the order of units, so machines need only their own number.
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
    """The part ``number`` of ``count``, counted from 1."""

    number: int
    count: int

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a shard such as ``2/4``.

        Raises:
            UsageError: the text is not a shard.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        number, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= count <= MOST:
            raise UsageError(
                f"--shard takes NUMBER/COUNT, such as 2/4 for the second of four parts, found "
                f"{shorten(repr(text))}"
            )
        return cls(number, count)

    def part(self, items: Iterable[T], name: Callable[[T], Sequence[str]], kind: str) -> list[T]:
        """Return the items of this shard, in their order.

        ``name`` identifies an item; its first part is a kind of equal cost, and the names of a kind
        are dealt out evenly. Items with the same name stay together.

        Raises:
            UsageError: there are fewer items than shards.
        """
        items = list(items)
        if len(items) < self.count:
            raise UsageError(
                f"--shard {self}: the run has {several(len(items), kind)}, too few for "
                f"{self.count} shards; give --shard 1/{len(items)} to {len(items)}/{len(items)} at "
                "most"
            )
        names = sorted({(*name(item),) for item in items}, key=_dealt)
        mine = {*names[self.number - 1 :: self.count]}
        return [item for item in items if (*name(item),) in mine]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def _dealt(name: Sequence[str]) -> tuple[str, ...]:
    """Return the order of dealing: by kind, then pseudo-random, because neighbours cost alike."""
    import hashlib  # importing it takes a tenth of the time of harness --help

    kind, *rest = name
    return kind, hashlib.sha256("\n".join(rest).encode()).hexdigest()
