"""The command ``differences``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from harness.defaults.catalogue import DefaultEntry, Entries, chosen, frameworks, record, shown
from harness.defaults.page import page
from harness.defaults.run import Held, Verification, verify
from harness.errors import UsageError
from harness.terminal import console, entry, line, say

STYLES = {"as written": "green", "changed": "bold red", "error": "bold red"}


def run_differences(layer: str | None, options: Mapping[str, Any]) -> int:
    """Print the entries, and what was measured of them; returns the exit code.

    Raises:
        UsageError: there is no such layer or framework, or options do not go together.
    """
    between: Sequence[str] = options["between"] or ()
    if options["markdown"]:
        if layer is not None or between or options["run"] or options["as_json"]:
            raise UsageError("--print-markdown writes the whole page: leave the other options out")
        say(page(), end="")
        return 0
    entries = chosen(layer, between)
    found = _verified(entries, between) if options["run"] else None
    if options["as_json"]:
        say(json.dumps(_document(entries, between, found)))
    elif not entries:
        what = f" of {layer}" if layer else ""
        say(f"no default{what} is listed in which {' and '.join(between)} differ")
    else:
        _print(entries, between, found)
    return found.exit_code if found is not None and entries else 0


def _verified(entries: Entries, between: Sequence[str]) -> Verification:
    err = console(error=True)
    return verify(
        entries, between or frameworks(entries), lambda name: line(err, f"measuring {name}")
    )


def _document(
    entries: Entries, between: Sequence[str], found: Verification | None
) -> dict[str, Any]:
    records = [record(name, one, between) for name, one in entries.items()]
    if found is None:
        return {"differences": records}
    return {
        "exit_code": found.exit_code if entries else 0,
        "versions": found.versions,
        "troubles": found.troubles,
        "differences": records,
        "measured": [asdict(held) for held in found.held],
    }


def _print(entries: Entries, between: Sequence[str], found: Verification | None) -> None:
    out = console()
    held = {(one.entry, one.framework): one for one in found.held} if found else {}
    for name, one in entries.items():
        out.print(entry(f"{name} ({', '.join(one.layers)})", "bold"), highlight=False)
        _prose(out, f"{one.parts} To agree on: {one.agree_on}.")
        out.print(_table(name, one, between, held))
        _prose(out, f"apart: {one.apart}")
        if one.elsewhere and not between:
            _prose(out, f"elsewhere: {one.elsewhere}")
        _prose(out, f"source: {one.source}")
        out.print()
    entries_told = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    line(out, entries_told if found is None else f"{entries_told}; {_summary(found)}")
    for framework, reason in (found.troubles if found else {}).items():
        line(out, f"{framework}: not run: {reason}")


def _prose(out: Console, text: str) -> None:
    out.print(Padding(entry(text), (0, 0, 0, 2), expand=False), highlight=False)


def _table(
    name: str, one: DefaultEntry, between: Sequence[str], held: Mapping[tuple[str, str], Held]
) -> Table:
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(entry("  framework"), no_wrap=True)
    grid.add_column(entry("does"), overflow="fold", ratio=1)
    grid.add_column(entry("set this"), overflow="fold", ratio=1)
    if held:
        grid.add_column(entry("now"), overflow="fold", max_width=16)
    for framework, its in shown(one, between).items():
        row = [entry(f"  {framework}"), entry(its.does), entry(its.set)]
        if held:
            now = held.get((name, framework))
            verdict = now.verdict if now else "-"
            told = now.detail if now and now.verdict in ("changed", "error") else ""
            row.append(entry(f"{verdict}: {told}" if told else verdict, STYLES.get(verdict, "")))
        grid.add_row(*row)
    return grid


def _summary(found: Verification) -> str:
    counts: dict[str, int] = {}
    for one in found.held:
        counts[one.verdict] = counts.get(one.verdict, 0) + 1
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    versions = {n: v for found_ in found.versions.values() for n, v in found_.items()}
    ran = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"{len(found.held)} defaults measured: {listed} ({ran})"
