"""Runs the tests room by room, and writes how long each takes into CONTRIBUTING.md.

    python tests/times.py             every room
    python tests/times.py spec text   these; the rows of the others stay as they are

A room whose tests fail keeps its row, and the exit code is 1.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
START, END = "<!-- times -->\n", "<!-- end of times -->"
UNKNOWN = ("", "")
# How many tests there are, and how long they took, as the table has it.
Row = tuple[str, str]


def rooms() -> list[str]:
    """The folders of tests."""
    return sorted({path.parent.name for path in ROOT.glob("tests/*/test_*.py")})


def measured(room: str) -> Row | None:
    """Run a room's tests in a process of their own, as anybody would; None if any failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"tests/{room}", f"--junitxml={report}"]
        started = time.perf_counter()
        code = subprocess.run(command, cwd=ROOT).returncode
        seconds = time.perf_counter() - started
        if code:
            return None
        suites = ElementTree.parse(report).getroot().iter("testsuite")
        return f"{sum(int(suite.get('tests', 0)) for suite in suites):,}", in_words(seconds)


def in_words(seconds: float) -> str:
    """A time to two digits: ``8 s``, ``75 s``, ``12 min``."""
    return f"{max(round(seconds), 1)} s" if seconds < 120 else f"{round(seconds / 60)} min"


def rows_of(text: str) -> dict[str, Row]:
    """The rows of the page, by room.

    Raises:
        ValueError: it lacks one of the two markers.
    """
    table = _parts(text)[1]
    return {
        room: (count, took)
        for room, count, took in re.findall(
            r"^\| `tests/(\w+)` \| ([\d,]*) \| ([^|]*?) \|$", table, re.MULTILINE
        )
    }


def with_rows(text: str, rows: Mapping[str, Row]) -> str:
    """The page with other rows, under the number of processors that they were measured on.

    Raises:
        ValueError: it lacks one of the two markers.
    """
    before, _, after = _parts(text)
    cores = len(os.sched_getaffinity(0))
    head = [f"| tests | how many | time on {cores} cores |", "|---|---|---|"]
    lines = [f"| `tests/{room}` | {count} | {took} |" for room, (count, took) in rows.items()]
    return before + "\n".join([*head, *lines, ""]) + after


def _parts(text: str) -> tuple[str, str, str]:
    """What is before the table, the table, and what is after it."""
    for marker in (START, END):
        if marker not in text:
            raise ValueError(f"{PAGE.name} lacks {marker.strip()}")
    before, _, rest = text.partition(START)
    table, _, after = rest.partition(END)
    return before + START, table, END + after


def main(asked: list[str]) -> int:
    """Run the rooms that are asked for, and write each as it is done."""
    known = rooms()
    unknown = [room for room in asked if room not in known]
    if unknown:
        print(f"no tests in tests/{unknown[0]}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    failed = 0
    for room in asked or known:
        row = measured(room)
        failed += row is None
        text = PAGE.read_text(encoding="utf-8")
        kept = rows_of(text)
        rows = {name: kept.get(name, UNKNOWN) for name in known}
        PAGE.write_text(with_rows(text, rows | ({room: row} if row else {})), encoding="utf-8")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
