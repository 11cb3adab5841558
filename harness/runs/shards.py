"""Shards of a run: which part of a plan each of several machines takes.

Every unit of a plan is in exactly one shard, whatever the order in which it was asked for, so that
machines that know nothing of each other need only their own number.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from harness.errors import UsageError, several, shorten

T = TypeVar("T")
MOST = 100_000
# Characters of all names of a plan; of one with more they are not made again.
MOST_NAMED = 1 << 27


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
    kind, *rest = name
    return kind, hashlib.sha256("\n".join(rest).encode()).hexdigest()


def plan_record(axes: Sequence[Collection[str]], shard: Shard | None) -> dict[str, Any]:
    """What a record says of the whole plan that its run is of, or has a shard of.

    The names of its cells are :func:`joined` of each combination of an entry of each axis.
    """
    names = _names(axes)
    return {
        "cells": len(names),
        "digest": _digest(names),
        "shard": str(shard) if shard else None,
        "axes": [sorted(axis) for axis in axes],
    }


def joined(parts: Iterable[str]) -> str:
    """The name of a cell of a plan, of an entry of each axis."""
    return "\n".join(parts)


@dataclass
class Plans:
    """The plans of several runs: which of their shards are there, how many cells each has, and
    their names, as far as the records tell them."""

    shards: dict[str, set[str]]
    cells: dict[str, int]
    names: dict[str, set[str]]

    @classmethod
    def of(cls, found: Iterable[Mapping[str, Any]]) -> Self:
        """The plans of some records of them."""
        plans = cls({}, {}, {})
        for plan in found:
            digest, axes = plan["digest"], plan.get("axes")
            plans.cells[digest] = plan["cells"]
            plans.shards.setdefault(digest, set()).add(plan["shard"] or "1/1")
            if digest not in plans.names and axes and _length(axes) <= MOST_NAMED:
                names = _names(axes)
                # What does not match is of somebody who has changed one of the two.
                if _digest(names) == digest:
                    plans.names[digest] = names
        return plans

    def told(self, ended: Collection[str]) -> tuple[int, list[str]]:
        """How many cells are missing, and what is told of shards; ``ended`` are the names of the
        cells that are there.

        Of a plan that does not name its cells it is known only how many they are, and that each
        shard has at least one: of several such plans no fewer cells are missing than is told.
        """
        lines = []
        least = 0
        for digest, found in self.shards.items():
            absent = 0
            for count, numbers in _by_count(found).items():
                if count > 1:
                    others = sorted({*range(1, count + 1)} - numbers)
                    more = f": not {', '.join(f'{n}/{count}' for n in others)}" if others else ""
                    lines.append(f"{len(numbers)} of {count} shards{more}")
                    absent += len(others)
            if digest not in self.names:
                several_plans = len(self.cells) > 1
                short = self.cells[digest] - len(ended)
                least = max(least, short, absent if several_plans and "1/1" not in found else 0)
        named = set().union(*self.names.values())
        if len(self.names) < len(self.cells) > 1:
            lines.append(
                f"{len(self.cells)} plans are joined, not all of which name their cells: more may "
                "be missing"
            )
        return max(least, len(named - {*ended})), lines


def _names(axes: Sequence[Collection[str]]) -> set[str]:
    return {joined(parts) for parts in itertools.product(*axes)}


def _length(axes: Sequence[Collection[str]]) -> int:
    """At most so many characters are in the names of a plan."""
    longest = sum(max(map(len, axis), default=0) + 1 for axis in axes)
    return math.prod(map(len, axes)) * longest


def _digest(names: Collection[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def _by_count(shards: Iterable[str]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for text in shards:
        shard = Shard.read(text)
        found.setdefault(shard.count, set()).add(shard.number)
    return found
