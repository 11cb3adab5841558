"""Cotangents of slices of a value, collected until all have come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.program.dims import Dim


@dataclass(frozen=True)
class SliceCotangent:
    """The cotangent of ``start:stop`` of a value along an axis."""

    axis: int
    start: Dim
    stop: Dim
    cotangent: int


def rows(pieces: Sequence[SliceCotangent]) -> list[list[SliceCotangent]]:
    """Rows of pieces that do not overlap, as far as symbolic sizes can tell."""
    found: list[list[SliceCotangent]] = []
    for piece in sorted(pieces, key=lambda p: (p.start.constant, sum(c for _, c in p.start.terms))):
        row = next((r for r in found if _not_negative(piece.start - r[-1].stop)), None)
        if row is None:
            found.append([piece])
        else:
            row.append(piece)
    return found


def _not_negative(dim: Dim) -> bool:
    return dim.constant >= 0 and all(c >= 0 for _, c in dim.terms)
