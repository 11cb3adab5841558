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
from harness.errors import EXIT_PASSED, UsageError
from harness.output.printing import console, entry, line
from harness.output.templates import filled


def page() -> str:
    """Return the catalogue as a Markdown page. The page is published as ``docs/differences.md``."""
    values = {"groups": groups(), "count": len(catalogue())}
    return filled("harness.defaults", "differences.md", **values)


# The number of spaces between two columns.
GAP = 2
STYLES = {"as written": "green", "changed": "bold red", "error": "bold red"}


def run_differences(options: DifferencesOptions) -> CommandResult:
    """Run the command ``harness differences``: look up entries, and measure them with ``--run``.

    Raises:
        UsageError: there is no such layer or framework, or two options exclude each other.
    """
    layer, between = options.layer, options.between or ()
    if options.print_markdown:
        if layer is not None or between or options.run or options.as_json:
            raise UsageError("--print-markdown prints the whole page: remove the other options")
        return CommandResult(None, page().removesuffix("\n"), wrap=False)
    entries = select_entries(layer, between)
    verification = None
    if options.run:
        err = console(error=True)
        names = between or frameworks(entries)
        verification = verify(entries, names, lambda name: line(err, f"measuring {name}"))
    code = verification.exit_code if verification is not None and entries else EXIT_PASSED
    data: dict[str, object] = {"differences": [record(n, e, between) for n, e in entries.items()]}
    if verification is not None:
        data |= {
            "exit_code": code,
            "versions": verification.versions,
            "troubles": verification.troubles,
        }
        data["measured"] = [asdict(held) for held in verification.measurements]
    if not entries:
        what = f" of {layer}" if layer else ""
        message = f"no default{what} is known in which {' and '.join(between)} differ"
        return CommandResult(data, message)
    return CommandResult(data, lambda out: _print(out, entries, between, verification), code)


def _print(
    out: Console, entries: Entries, between: Sequence[str], verification: Verification | None
) -> None:
    by_entry = (
        {(entry_.entry, entry_.framework): entry_ for entry_ in verification.measurements}
        if verification
        else {}
    )
    for name, entry_ in entries.items():
        line(out, f"{name} ({', '.join(entry_.layers)})", "bold")
        _print_text(out, f"{entry_.parts} Recommended: {entry_.agree_on}.")
        _print_frameworks(out, name, entry_, between, by_entry)
        _print_text(out, f"effect: {entry_.apart}")
        if entry_.elsewhere and not between:
            _print_text(out, f"elsewhere: {entry_.elsewhere}")
        _print_text(out, f"source: {entry_.source}")
        out.print()
    count_text = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    line(out, count_text if verification is None else f"{count_text}; {_summary(verification)}")
    for framework, reason in (verification.troubles if verification else {}).items():
        line(out, f"{framework}: not run: {reason}")


def _print_text(out: Console, text: str) -> None:
    line(out, f"  {text}", further=0)


def _print_frameworks(
    out: Console,
    name: str,
    entry_: DefaultEntry,
    between: Sequence[str],
    measurements: Mapping[tuple[str, str], Measurement],
) -> None:
    """Print the default and the recommended setting of each framework, and its measured value if
    there is one.

    The rows form a table if the terminal is wide enough, otherwise paragraphs.
    """
    heads = ["  framework", "does", "set this", *(["now"] if measurements else [])]
    rows: list[list[Text]] = []
    for framework, facts in select_frameworks(entry_, between).items():
        row = [entry(f"  {framework}"), entry(facts.does), entry(facts.set)]
        if measurements:
            measurement = measurements.get((name, framework))
            verdict = measurement.verdict if measurement else "-"
            detail = (
                measurement.detail
                if measurement and measurement.verdict in ("changed", "error")
                else ""
            )
            row.append(
                entry(f"{verdict}: {detail}" if detail else verdict, STYLES.get(verdict, ""))
            )
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
    """Return the widths of a table's columns, with which no word is broken. Each column is at least
    as wide as its longest word. The remaining characters are divided equally. Return an empty list
    if the table does not fit into ``columns`` characters."""
    by_column = list(zip(*rows, strict=True))
    full_widths = [max(text.cell_len for text in column) for column in by_column]
    widths = [
        max((cell_len(word) for text in column for word in text.plain.split()), default=0)
        for column in by_column
    ]
    widths[0] = full_widths[0]
    remaining = columns - sum(widths) - GAP * (len(widths) - 1)
    if remaining < 0:
        return []
    while remaining and (narrow := [n for n, width in enumerate(widths) if width < full_widths[n]]):
        for number in narrow[:remaining]:
            widths[number] += 1
        remaining -= len(narrow[:remaining])
    return widths


def _summary(verification: Verification) -> str:
    counts: dict[str, int] = {}
    for measurement in verification.measurements:
        counts[measurement.verdict] = counts.get(measurement.verdict, 0) + 1
    counts_text = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    versions = {n: v for found_ in verification.versions.values() for n, v in found_.items()}
    versions_text = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"{len(verification.measurements)} defaults measured: {counts_text} ({versions_text})"
