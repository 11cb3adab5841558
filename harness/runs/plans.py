"""The plans of runs (lists of all their cells), and the search for cells that are missing after
shards of a run are joined."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field

from harness.files.forms import Form
from harness.runs.shards import Shard

# If all names of a plan's cells have more characters than this, the names are not generated.
MOST_NAMED = 1 << 27


class RunPlan(Form):
    """The plan of a whole run, i.e. the list of its cells, including those of all shards (parts of
    the run for several machines).

    ``shard`` is the shard that was run, such as ``2/4``, or None if the run was not split.
    ``cells`` is the number of all cells, and ``digest`` a checksum of their names. The cells are
    all combinations of one entry from each of the ``axes`` (e.g. backends and specs);
    :func:`join_name` makes the name of a cell from its entries.
    """

    cells: Annotated[int, Field(ge=0, lt=2**63)]
    digest: str
    shard: str | None = None
    axes: list[list[str]] | None = None

    @classmethod
    def of(cls, axes: Sequence[Collection[str]], shard: Shard | None) -> Self:
        """Return the plan of a run that has a cell for each combination of entries of these axes.
        ``shard`` is the part of the run that this command runs, or None for the whole run."""
        names = _make_names(axes)
        sorted_axes = [sorted(axis) for axis in axes]
        part = str(shard) if shard else None
        return cls(cells=len(names), digest=_digest(names), shard=part, axes=sorted_axes)


def join_name(parts: Iterable[str]) -> str:
    """Return the name of a cell: its parts (e.g. backend and spec), joined by newlines."""
    return "\n".join(parts)


@dataclass
class Plans:
    """The plans of several runs. Plans with the same cells have the same checksum, which is the key
    of the dictionaries: ``shards`` has the shards that were run, ``cells`` the number of cells, and
    ``names`` the names of the cells if they are known."""

    shards: dict[str, set[str]]
    cells: dict[str, int]
    names: dict[str, set[str]]

    @classmethod
    def of(cls, found: Iterable[RunPlan]) -> Self:
        """Collect the plans of some runs. Several of the runs may be shards of the same plan."""
        plans = cls({}, {}, {})
        for plan in found:
            digest, axes = plan.digest, plan.axes
            plans.cells[digest] = plan.cells
            plans.shards.setdefault(digest, set()).add(plan.shard or "1/1")
            if digest not in plans.names and axes and _total_length(axes) <= MOST_NAMED:
                names = _make_names(axes)
                # If the digest does not match, the file was edited, so ignore the names.
                if _digest(names) == digest:
                    plans.names[digest] = names
        return plans

    def describe_missing(self, ended: Collection[str]) -> tuple[int, list[str]]:
        """Return the number of missing cells, and lines of text about missing shards. ``ended`` has
        the names of all finished cells. If there are several plans and some do not list their
        cells, more cells may be missing than the number says."""
        lines = []
        least = 0
        for digest, shards in self.shards.items():
            missing_shards = 0
            for count, numbers in _group_by_count(shards).items():
                if count > 1:
                    others = sorted({*range(1, count + 1)} - numbers)
                    more = (
                        f": missing {', '.join(f'{n}/{count}' for n in others)}" if others else ""
                    )
                    lines.append(f"{len(numbers)} of {count} shards{more}")
                    missing_shards += len(others)
            if digest not in self.names:
                several_plans = len(self.cells) > 1
                missing_cells = self.cells[digest] - len(ended)
                least = max(
                    least,
                    missing_cells,
                    missing_shards if several_plans and "1/1" not in shards else 0,
                )
        known_names = set().union(*self.names.values())
        if len(self.names) < len(self.cells) > 1:
            lines.append(
                f"{len(self.cells)} plans are joined, but not all list their cells: more cells "
                "may be missing"
            )
        return max(least, len(known_names - {*ended})), lines


def _make_names(axes: Sequence[Collection[str]]) -> set[str]:
    return {join_name(parts) for parts in itertools.product(*axes)}


def _total_length(axes: Sequence[Collection[str]]) -> int:
    """Return an upper bound of the number of characters that the names of all cells of a plan have
    together. If it is too large, the names are not made."""
    longest = sum(max(map(len, axis), default=0) + 1 for axis in axes)
    return math.prod(map(len, axes)) * longest


def _digest(names: Collection[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def _group_by_count(shards: Iterable[str]) -> dict[int, set[int]]:
    by_count: dict[int, set[int]] = {}
    for text in shards:
        shard = Shard.read(text)
        by_count.setdefault(shard.count, set()).add(shard.number)
    return by_count
