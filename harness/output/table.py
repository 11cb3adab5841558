"""Tables for terminals of any width: a table is printed as a whole, in parts with fewer columns, or
as paragraphs.

Nothing is cut off. If a table is too wide and its columns are alike (e.g. one column per backend),
it is split into parts with fewer columns. If the parts are still too wide, or the columns show
different things, each row becomes a paragraph.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.output.markdown import escaped, table
from harness.output.printing import UNLIMITED, drawing, entry, line

Entry = str | Text
# The least number of columns in a part, in addition to the columns that name the row. With fewer
# columns, paragraphs are easier to read.
FEWEST = 2


@dataclass
class Grid:
    """A table of texts with a title. The first ``names`` columns name the row, e.g. by the spec.

    ``alike`` is True if all other columns show the same kind of value, e.g. the results of one
    backend each. ``ruled`` draws lines between the entries.
    """

    title: str
    columns: list[str]
    rows: list[list[Entry]] = field(default_factory=list)
    alike: bool = True
    names: int = 1
    ruled: bool = False

    def rich(self) -> Table:
        """Return the table for a terminal, as an object of the package rich. The table is readable
        without colour."""
        table = Table() if self.ruled else Table(box=box.SIMPLE, pad_edge=False)
        for number, column in enumerate(self.columns):
            right = number >= self.names
            table.add_column(_entry(column), justify="right" if right else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*map(_entry, row))
        return table

    def markdown(self) -> str:
        """Return the table and its title as Markdown."""
        rows = [[str(text) for text in row] for row in self.rows]
        return f"**{escaped(self.title)}**\n\n{table(self.columns, rows)}"

    def only(self, columns: Sequence[int]) -> Grid:
        """Return a copy that has only the columns that name a row, and the columns with the numbers
        ``columns``."""
        numbers = [*range(self.names), *columns]
        rows = [[row[n] for n in numbers] for row in self.rows]
        return replace(self, columns=[self.columns[n] for n in numbers], rows=rows)

    def folded(self) -> Grid:
        """Return a narrower copy: headings are broken at their hyphens, and there are no lines
        between the entries."""
        columns = [column.replace("-", "-\n") for column in self.columns]
        return replace(self, columns=columns, ruled=False)


def show(target: Console, *grids: Grid) -> None:
    """Print the first of ``grids`` that fits the width of the console. They are variants of the
    same table, from wide to narrow.

    If no variant fits, print the last variant in parts with fewer columns, or as paragraphs.
    """
    line(target, grids[0].title)
    for grid in (*grids, grids[-1].folded()):
        if _width(target, grid) <= target.width:
            target.print(grid.rich())
            return
    grid = grids[-1].folded()
    parts = list(_parts(target, grid)) if grid.alike else []
    if parts and all(len(part.columns) >= grid.names + FEWEST for part in parts[:-1]):
        for part in parts:
            target.print(part.rich())
        return
    for row in grids[-1].rows:
        _paragraph(target, grids[-1], row)


def thousands(rate: float) -> str:
    """Format a rate in thousands with three digits, e.g. 12345 as ``12.3``."""
    value = rate / 1000
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _width(target: Console, grid: Grid) -> int:
    options = target.options.update(max_width=UNLIMITED)
    return Measurement.get(target, options, grid.rich()).maximum


def _parts(target: Console, grid: Grid) -> Iterator[Grid]:
    """Yield parts of a table, each with as many columns as fit on the console. Stop if a single
    column does not fit."""
    waiting = list(range(grid.names, len(grid.columns)))
    while waiting:
        count = len(waiting)
        while count and _width(target, grid.only(waiting[:count])) > target.width:
            count -= 1
        if not count:
            return
        yield grid.only(waiting[:count])
        del waiting[:count]


def _paragraph(target: Console, grid: Grid, row: Sequence[Entry]) -> None:
    """Print a row as a paragraph: its name, then each entry after the heading of its column."""
    line(target, " ".join(str(text) for text in row[: grid.names]))
    pairs = zip(grid.columns[grid.names :], row[grid.names :], strict=True)
    items = [
        Text.assemble(f"{column} ", Text(", ").join(_entry(text).split("\n")))
        for column, text in pairs
        if str(text)
    ]
    several = grid.alike and any("\n" in str(text) for text in row)
    for part in items if several else [Text("; ").join(items)]:
        target.print(Padding(part, (0, 0, 0, 2), expand=False), highlight=False)


def _entry(text: Entry) -> Text:
    return text if isinstance(text, Text) else entry(text)


def text_of(*forms: Grid) -> str:
    """Return the table that :func:`show` would print for these variants, as text without colour."""
    buffer = io.StringIO()
    show(drawing(buffer), *forms)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip("\n").split("\n"))
