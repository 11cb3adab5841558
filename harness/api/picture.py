"""Pictures of results for notebooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Self

from harness.errors import UsageError
from harness.files.atomic import write_whole
from harness.report import svg_pictures


@dataclass(frozen=True, repr=False)
class Picture:
    """A picture, stored as the text of an SVG file."""

    svg: str

    @classmethod
    def of(cls, draw: Callable[[], str]) -> Self:
        """Call ``draw`` and return its picture.

        Raises:
            UsageError: matplotlib is not installed.
        """
        if not svg_pictures.available():
            raise UsageError("plot() needs matplotlib: 'pip install matplotlib'")
        return cls(draw())

    def save(self, path: str | PathLike[str]) -> None:
        """Write the SVG file."""
        write_whole(Path(path), self.svg.encode())

    def __repr__(self) -> str:
        return f"<Picture: {len(self.svg):,} characters of SVG>"

    def _repr_html_(self) -> str:
        # Inline SVG gets the notebook's colours for lines and texts.
        return self.svg
