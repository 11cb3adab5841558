"""Files of code can be read in one go, and those of tests have names of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

FOLDERS = ("harness", "backends", "tests", "docs")
# Lines that a file may have.
MOST = 500


def too_long(root: Path) -> Iterator[str]:
    """The files of code below a folder that have too many lines, by their paths from it."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            if len(path.read_text(encoding="utf-8").splitlines()) > MOST:
                yield path.relative_to(root).as_posix()


def test_files_have_no_more_lines_than_are_allowed() -> None:
    found = list(too_long(ROOT))
    assert not found, f"more than {MOST} lines: split them by subject"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_file_with_one_line_more_is_seen(folder: str, tmp_path: Path) -> None:
    inner = tmp_path / folder / "inner"
    inner.mkdir(parents=True)
    (inner / "right.py").write_text("a = 1\n" * MOST)
    (inner / "long.py").write_text("a = 1\n" * (MOST + 1))
    assert list(too_long(tmp_path)) == [f"{folder}/inner/long.py"]


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest imports each by its name alone, whatever folder it is in."""
    names = Counter(path.name for path in ROOT.glob("tests/**/test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
