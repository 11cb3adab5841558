"""Shards of a run: which part of a plan each of several machines takes.

Every unit of a plan is in exactly one shard, whatever the order in which it was asked for, so that
machines that know nothing of each other need only their own number.
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
        """A shard as it is asked for: ``2/4``.

        Raises:
            UsageError: it is none.
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
        """The items of this shard, in their order.

        ``name`` is what identifies an item, by what its cost depends on first: of each such kind
        every shard gets as many, give or take one. Items that share a name stay together, unless
        there are fewer names than shards.

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
    """The order in which names are dealt: by kind, and within it as if shuffled, for neighbours
    cost alike."""
    import hashlib  # takes a tenth of the time of harness --help

    kind, *rest = name
    return kind, hashlib.sha256("\n".join(rest).encode()).hexdigest()
