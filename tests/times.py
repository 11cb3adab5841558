"""Writes how long the tests of each room take into CONTRIBUTING.md, and of each file into
times.json, by which they are put in order, from the reports of pytest.

pytest -m "not alone" --junitxml=most.xml
pytest -m alone --junitxml=alone.xml
python tests/times.py most.xml alone.xml
"""

from __future__ import annotations

import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
FILES = Path(__file__).with_suffix(".json")
# Seconds from which a file counts as long.
LONG = 5
START, END = "<!-- times -->\n", "<!-- end of times -->"
# How many tests there are, and how long they took, as the table has it.
Row = tuple[str, str]


def rooms() -> list[str]:
    """The folders of tests."""
    return sorted({path.parent.name for path in ROOT.glob("tests/*/test_*.py")})


def rows_in(reports: Iterable[Path]) -> dict[str, Row]:
    """How many tests there are in each room, and how long they take one after the other.

    Raises:
        ValueError: a test failed, so that its time says nothing.
    """
    counts: dict[str, int] = dict.fromkeys(rooms(), 0)
    seconds: dict[str, float] = dict.fromkeys(counts, 0.0)
    for room, _, took in _times(reports):
        counts[room] += 1
        seconds[room] += took
    return {room: (f"{counts[room]:,}", in_words(seconds[room])) for room in counts}


def files_in(reports: Iterable[Path]) -> dict[str, int]:
    """Seconds of each long file, by its path below tests, the longest first.

    Raises:
        ValueError: a test failed, so that its time says nothing.
    """
    seconds: Counter[str] = Counter()
    for room, file, took in _times(reports):
        seconds[f"{room}/{file}.py"] += took
    return {file: round(took) for file, took in seconds.most_common() if took >= LONG}


def _times(reports: Iterable[Path]) -> Iterator[tuple[str, str, float]]:
    """The room, the file and the seconds of each test."""
    for report in reports:
        for test in ElementTree.parse(report).getroot().iter("testcase"):
            name = f"{test.get('classname')}.{test.get('name')}"
            if test.find("failure") is not None or test.find("error") is not None:
                raise ValueError(f"{report}: {name} failed")
            _, room, file, *_ = name.split(".")
            yield room, file, float(test.get("time", 0))


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
    head = [f"| tests | how many | one after the other, on {cores} cores |", "|---|---|---|"]
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


def main(reports: list[str]) -> int:
    """Write both from reports."""
    if not reports:
        print("give the reports that pytest --junitxml has written", file=sys.stderr)
        return 2
    rows = rows_in(map(Path, reports))
    PAGE.write_text(with_rows(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    FILES.write_text(json.dumps(files_in(map(Path, reports)), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
