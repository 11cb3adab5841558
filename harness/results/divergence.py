"""How a pass parts from the oracle, value by value: what a picture of it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Link:
    """A named value at the worst of its time steps, relative to its size."""

    value: str
    error: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether the error is allowed."""
        return self.error <= self.allowed


@dataclass(frozen=True)
class Divergence:
    """The values of a pass in the order in which they are made.

    ``first`` is the first that is wrong; ``steps`` are its time steps, each with error and what is
    allowed. ``lines`` are those of ``file`` around ``line``, where its equation stands, from
    ``start`` on.
    """

    first: str
    links: tuple[Link, ...]
    steps: tuple[tuple[int, float, float], ...] = ()
    file: str = ""
    line: int = 0
    start: int = 0
    lines: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The divergence as plain data."""
        return asdict(self)

    @classmethod
    def of_record(cls, record: Mapping[str, Any] | None) -> Self | None:
        """The divergence of its plain data; None of none."""
        if record is None:
            return None
        return cls(
            record["first"],
            tuple(
                Link(link["value"], float(link["error"]), float(link["allowed"]))
                for link in record["links"]
            ),
            tuple((int(n), float(e), float(a)) for n, e, a in record.get("steps", ())),
            record.get("file", ""),
            record.get("line", 0),
            record.get("start", 0),
            tuple(record.get("lines", ())),
        )
