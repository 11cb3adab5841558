"""Script that measures how long tests take, from the XML reports of pytest.

It writes the times per folder into CONTRIBUTING.md, and the times per file into times.json, which
determines the order of the files.

    pytest -m "not alone" --junitxml=most.xml
    pytest -m alone --junitxml=alone.xml
    python tests/times.py most.xml alone.xml
"""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from harness.files.system import usable_cores

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
FILES = Path(__file__).with_suffix(".json")
# The seconds from which on a file counts as slow.
LONG = 5
START, END = "<!-- times -->\n", "<!-- end of times -->"
# The number of tests and their total time, as text of the table.
Row = tuple[str, str]


def folders() -> list[str]:
    """Return the folders of tests."""
    return sorted({path.parent.name for path in ROOT.glob("tests/*/test_*.py")})


def rows_in(reports: Iterable[Path]) -> dict[str, Row]:
    """Return for each folder the number of tests and their total time.

    Raises:
        ValueError: a test failed, so its time is meaningless.
    """
    counts: dict[str, int] = dict.fromkeys(folders(), 0)
    seconds: dict[str, float] = dict.fromkeys(counts, 0.0)
    for folder, _, took in _times(reports):
        counts[folder] += 1
        seconds[folder] += took
    return {folder: (f"{counts[folder]:,}", in_words(seconds[folder])) for folder in counts}


def files_in(reports: Iterable[Path]) -> dict[str, int]:
    """Return the seconds of each slow file by its path below tests, slowest first.

    Raises:
        ValueError: a test failed, so its time is meaningless.
    """
    seconds: Counter[str] = Counter()
    for folder, file, took in _times(reports):
        seconds[f"{folder}/{file}.py"] += took
    return {file: round(took) for file, took in seconds.most_common() if took >= LONG}


def _times(reports: Iterable[Path]) -> Iterator[tuple[str, str, float]]:
    """Yield the folder, the file and the seconds of each test."""
    for report in reports:
        for test in ElementTree.parse(report).getroot().iter("testcase"):
            name = f"{test.get('classname')}.{test.get('name')}"
            if test.find("failure") is not None or test.find("error") is not None:
                raise ValueError(f"{report}: {name} failed")
            _, folder, file, *_ = name.split(".")
            yield folder, file, float(test.get("time", 0))


def in_words(seconds: float) -> str:
    """Format a time with two digits: ``8 s``, ``75 s``, ``12 min``."""
    return f"{max(round(seconds), 1)} s" if seconds < 120 else f"{round(seconds / 60)} min"


def rows_of(text: str) -> dict[str, Row]:
    """Return the rows of the page's table by folder.

    Raises:
        ValueError: the page lacks one of the two markers.
    """
    table = _parts(text)[1]
    return {
        folder: (count, took)
        for folder, count, took in re.findall(
            r"^\| `tests/(\w+)` \| ([\d,]*) \| ([^|]*?) \|$", table, re.MULTILINE
        )
    }


def with_rows(text: str, rows: Mapping[str, Row]) -> str:
    """Return the page with new rows, and with the number of cores that they were measured on.

    Raises:
        ValueError: the page lacks one of the two markers.
    """
    before, _, after = _parts(text)
    cores = usable_cores()
    head = [f"| tests | how many | one after the other, on {cores} cores |", "|---|---|---|"]
    lines = [f"| `tests/{folder}` | {count} | {took} |" for folder, (count, took) in rows.items()]
    return before + "\n".join([*head, *lines, ""]) + after


def _parts(text: str) -> tuple[str, str, str]:
    """Split the page into the text before the table, the table, and the text after it."""
    for marker in (START, END):
        if marker not in text:
            raise ValueError(f"{PAGE.name} lacks {marker.strip()}")
    before, _, rest = text.partition(START)
    table, _, after = rest.partition(END)
    return before + START, table, END + after


def main(reports: list[str]) -> int:
    """Write CONTRIBUTING.md and times.json from reports."""
    if not reports:
        print("give the reports that pytest --junitxml has written", file=sys.stderr)
        return 2
    rows = rows_in(map(Path, reports))
    PAGE.write_text(with_rows(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    FILES.write_text(json.dumps(files_in(map(Path, reports)), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
