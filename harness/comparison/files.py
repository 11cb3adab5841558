"""The two files of a comparison: records of checks, or results of speeds."""

from __future__ import annotations

from pathlib import Path

from harness.checking import changes as checks
from harness.errors import UsageError
from harness.files import kinds
from harness.files.user_file import FileFault, displayed, read_head
from harness.results.blocks import blocks
from harness.results.file import Records, read_records
from harness.results.speeds import SpeedFile
from harness.runs.compared import RunChanges
from harness.timing import compare as speeds
from harness.timing import json_file

NAMES = {True: "a record file of 'harness check'", False: "results of 'harness bench'"}


def compare(old: Path, new: Path, threshold: float = speeds.THRESHOLD) -> RunChanges:
    """What changed from one file to another; ``threshold`` is for speeds.

    Raises:
        UsageError: a file is of neither kind, or they are not of one kind.
        HarnessError: a file cannot be read, or is damaged.
    """
    first, second = load(old), load(new)
    if isinstance(first, Records) and isinstance(second, Records):
        for path, records in ((old, first), (new, second)):
            if not blocks(records):
                raise UsageError(f"{displayed(path)} holds no cell that has ended")
        return checks.compare(first, second)
    if isinstance(first, Records) or isinstance(second, Records):
        told = (
            f"{displayed(path)} is {NAMES[isinstance(content, Records)]}"
            for path, content in ((old, first), (new, second))
        )
        raise UsageError(f"{', and '.join(told)}: give two files of one kind")
    for path, content in ((old, first), (new, second)):
        speeds.check_cells(content, displayed(path))
    return speeds.compare(first, second, threshold)


def load(path: Path) -> Records | SpeedFile:
    """The content of a file, by its kind.

    Raises:
        UsageError: it is of neither kind, or cannot be opened.
        HarnessError: it is damaged.
    """
    name = displayed(path)
    try:
        head = read_head(path, kinds.HEAD)
        if head and kinds.RECORDS.matches(path, head):
            return read_records(path)
        if not head.startswith(b"{"):
            raise UsageError(
                f"cannot compare {name}: this is {kinds.described(path)}; give two files of "
                "'harness check --records', or two of 'harness bench --records'"
            )
    except FileFault as fault:
        raise UsageError(f"cannot read {name}: {fault.reason}") from None
    return json_file.read(path)
