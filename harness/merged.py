"""What came of joining files of several runs, and the words in which it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Merged:
    """The content of the joined file, and what is to be known of it.

    ``duplicates`` are by file the cells that another one had from the same origin, with the same
    outcome; ``contradictions`` are those with another one, in words. ``shards`` says what is there
    of runs that were made in parts, and ``missing`` is how many cells of the plan are not.
    """

    kind: str
    content: bytes
    files: int
    cells: int
    machines: Sequence[str]
    counts: Mapping[str, int]
    duplicates: Mapping[str, int]
    contradictions: Sequence[str]
    shards: Sequence[str]
    missing: int
    notes: Sequence[str] = ()

    @property
    def exit_code(self) -> int:
        """1: contradictions; 3: cells are missing; 0: neither."""
        return 1 if self.contradictions else 3 if self.missing else 0

    def lines(self, place: str) -> list[str]:
        """All of it in words; ``place`` is where the content is."""
        found = [
            f"{name}: {_cells(count)} of it {'is' if count == 1 else 'are'} in another file too, "
            "with the same outcome: kept once"
            for name, count in self.duplicates.items()
        ]
        found += [*self.contradictions, *self.notes]
        machines = "1 machine" if len(self.machines) == 1 else f"{len(self.machines)} machines"
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        found.append(
            f"{self.kind}: {_cells(self.cells)} of {self.files} files, from {machines}, in {place}"
            + (f": {counts}" if counts else "")
        )
        told = [*self.shards, *([f"{_cells(self.missing)} missing"] if self.missing else [])]
        return [*found, *(["; ".join(told)] if told else [])]

    def record(self) -> dict[str, Any]:
        """As plain data, without the content."""
        return {
            "kind": self.kind,
            "files": self.files,
            "cells": self.cells,
            "machines": list(self.machines),
            "counts": dict(self.counts),
            "duplicates": dict(self.duplicates),
            "contradictions": list(self.contradictions),
            "shards": list(self.shards),
            "missing": self.missing,
            "notes": list(self.notes),
        }


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count:,} cells"
