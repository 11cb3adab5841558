"""The command ``harness differences``: its output and exit codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.command.outcome import CommandResult
from harness.defaults.catalogue import (
    DefaultEntry,
    Entries,
    catalogue,
    frameworks,
    groups,
    record,
    select_entries,
    select_frameworks,
)
from harness.defaults.options import DifferencesOptions
from harness.defaults.run import Measurement, Verification, verify
from harness.errors import UsageError
from harness.output.printing import console, entry, line
from harness.output.templates import filled


def page() -> str:
    """Return the catalogue as the Markdown page ``docs/differences.md``."""
    values = {"groups": groups(), "count": len(catalogue())}
    return filled("harness.defaults", "differences.md", **values)


# The number of spaces between two columns.
GAP = 2
STYLES = {"as written": "green", "changed": "bold red", "error": "bold red"}


def run_differences(asked: DifferencesOptions) -> CommandResult:
    """Run the command ``harness differences``: look up entries, and measure them with ``--run``.

    Raises:
        UsageError: there is no such layer or framework, or two options exclude each other.
    """
    layer, between = asked.layer, asked.between or ()
    if asked.print_markdown:
        if layer is not None or between or asked.run or asked.as_json:
            raise UsageError("--print-markdown prints the whole page: remove the other options")
        return CommandResult(None, page().removesuffix("\n"), wrap=False)
    entries = select_entries(layer, between)
    found = None
    if asked.run:
        err = console(error=True)
        named = between or frameworks(entries)
        found = verify(entries, named, lambda name: line(err, f"measuring {name}"))
    code = found.exit_code if found is not None and entries else 0
    data: dict[str, object] = {"differences": [record(n, e, between) for n, e in entries.items()]}
    if found is not None:
        data |= {"exit_code": code, "versions": found.versions, "troubles": found.troubles}
        data["measured"] = [asdict(held) for held in found.measurements]
    if not entries:
        what = f" of {layer}" if layer else ""
        told = f"no default{what} is known in which {' and '.join(between)} differ"
        return CommandResult(data, told)
    return CommandResult(data, lambda out: _print(out, entries, between, found), code)


def _print(
    out: Console, entries: Entries, between: Sequence[str], found: Verification | None
) -> None:
    held = {(one.entry, one.framework): one for one in found.measurements} if found else {}
    for name, one in entries.items():
        line(out, f"{name} ({', '.join(one.layers)})", "bold")
        _prose(out, f"{one.parts} Recommended: {one.agree_on}.")
        _measures(out, name, one, between, held)
        _prose(out, f"effect: {one.apart}")
        if one.elsewhere and not between:
            _prose(out, f"elsewhere: {one.elsewhere}")
        _prose(out, f"source: {one.source}")
        out.print()
    entries_told = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    line(out, entries_told if found is None else f"{entries_told}; {_summary(found)}")
    for framework, reason in (found.troubles if found else {}).items():
        line(out, f"{framework}: not run: {reason}")


def _prose(out: Console, text: str) -> None:
    line(out, f"  {text}", further=0)


def _measures(
    out: Console,
    name: str,
    one: DefaultEntry,
    between: Sequence[str],
    held: Mapping[tuple[str, str], Measurement],
) -> None:
    """Print each framework's default and setting, as a table if no word has to be broken, else as
    paragraphs."""
    heads = ["  framework", "does", "set this", *(["now"] if held else [])]
    rows: list[list[Text]] = []
    for framework, its in select_frameworks(one, between).items():
        row = [entry(f"  {framework}"), entry(its.does), entry(its.set)]
        if held:
            now = held.get((name, framework))
            verdict = now.verdict if now else "-"
            told = now.detail if now and now.verdict in ("changed", "error") else ""
            row.append(entry(f"{verdict}: {told}" if told else verdict, STYLES.get(verdict, "")))
        rows.append(row)
    widths = _widths([[entry(head) for head in heads], *rows], out.width)
    if not widths:
        for row in rows:
            line(out, row[0].plain)
            for head, text in zip(heads[1:], row[1:], strict=True):
                line(out, f"    {head}: {text.plain}", str(text.style))
        return
    grid = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for head, width in zip(heads, widths, strict=True):
        grid.add_column(entry(head), width=width)
    for row in rows:
        grid.add_row(*row)
    out.print(grid)


def _widths(rows: Sequence[Sequence[Text]], columns: int) -> list[int]:
    """Return widths of the columns with which no word is broken; empty if the table does not fit.
    Each column is at least as wide as its longest word. The remaining width is divided equally."""
    by_column = list(zip(*rows, strict=True))
    wanted = [max(text.cell_len for text in column) for column in by_column]
    widths = [
        max((cell_len(word) for text in column for word in text.plain.split()), default=0)
        for column in by_column
    ]
    widths[0] = wanted[0]
    left = columns - sum(widths) - GAP * (len(widths) - 1)
    if left < 0:
        return []
    while left and (short := [n for n, width in enumerate(widths) if width < wanted[n]]):
        for number in short[:left]:
            widths[number] += 1
        left -= len(short[:left])
    return widths


def _summary(found: Verification) -> str:
    counts: dict[str, int] = {}
    for one in found.measurements:
        counts[one.verdict] = counts.get(one.verdict, 0) + 1
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    versions = {n: v for found_ in found.versions.values() for n, v in found_.items()}
    ran = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"{len(found.measurements)} defaults measured: {listed} ({ran})"
