"""What a request of ``harness bench`` stands for: entries, and the groups they are timed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Self

from harness.runs.plans import RunPlan, joined
from harness.timing.request import (
    BenchRequest,
    Entry,
    Group,
    TimedCell,
    check_request,
    entries_from,
    groups_of,
    lacking_of,
)


@dataclass(frozen=True)
class BenchPlan:
    """``every`` are the groups of all shards, ``groups`` those of the request's own; ``lacking``
    are the backends that are left out, and what brings their framework."""

    request: BenchRequest
    entries: Sequence[Entry]
    every: Sequence[Group]
    groups: Sequence[Group]
    lacking: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, request: BenchRequest, entries: Sequence[Entry] | None = None) -> Self:
        """The plan of a request; ``entries`` are those of the request if left out.

        Raises:
            UsageError: the request cannot be.
        """
        check_request(request)
        lacking = lacking_of(request) if entries is None else {}
        entries = entries_from(request) if entries is None else entries
        every, shard = groups_of(request), request.shard
        # A group is timed interleaved, and so on one machine.
        groups = every if shard is None else shard.part(every, attrgetter("name"), "group")
        return cls(request, [*entries], every, groups, lacking)

    @property
    def cells(self) -> list[TimedCell]:
        """An entry in a group each, group by group; of a shard, its own."""
        return [group.cell(entry.label) for group in self.groups for entry in self.entries]

    def record(self) -> RunPlan:
        """What a file of results says of the whole plan."""
        groups = {joined(group.name) for group in self.every}
        labels = {entry.label for entry in self.entries}
        return RunPlan.of([groups, labels], self.request.shard)
