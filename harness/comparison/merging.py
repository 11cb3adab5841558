"""The command ``harness merge``, which joins the record files of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.command.outcome import CommandResult
from harness.comparison.options import MergeOptions
from harness.errors import HarnessError, UsageError, several
from harness.files import kinds
from harness.files.user_file import FileFault, displayed
from harness.output.printing import line
from harness.results.file import read_records
from harness.results.merging import Merged, merge_records, merge_speeds
from harness.timing import json_file

KINDS = (kinds.RECORDS, kinds.RESULTS)


def run_merge(options: MergeOptions) -> CommandResult:
    """Run the command ``harness merge``: join record files, and write the result.

    Raises:
        UsageError: the files are of different kinds, the output file cannot be written, or it
            exists and has cells that are in none of the files.
        HarnessError: a file cannot be read, or is damaged.
    """
    files, output = options.files, options.output
    kind = _find_common_kind(files)
    kinds.check_output(output, kind)
    merged = merge(files)
    _check_nothing_lost(files, output, merged)
    kinds.write_output(output, merged.content)

    def draw(out: Any) -> None:
        for text in merged.lines(displayed(output)):
            line(out, text)

    data = {"exit_code": merged.exit_code, **merged.record()}
    return CommandResult(data, draw, merged.exit_code)


def _check_nothing_lost(files: Sequence[Path], output: Path, merged: Merged) -> None:
    """Check the existing file ``output``, which will be replaced. Raise :class:`UsageError` if it
    has cells that are in none of the ``files`` and would be lost."""
    if not (output.exists() and output.stat().st_size) or any(map(output.samefile, files)):
        return
    instead = "remove it, choose another --output, or list it among the files to keep its cells"
    try:
        lost = merge([*files, output]).cells - merged.cells
    except HarnessError as error:
        raise UsageError(f"cannot replace {displayed(output)}: {error}; {instead}") from None
    if lost:
        raise UsageError(
            f"cannot replace {displayed(output)}: it has {several(lost, 'cell')} that none of the "
            f"files has; {instead}"
        )


def merge(files: Sequence[Path]) -> Merged:
    """Return the joined contents of several record files, e.g. of a run that was divided into
    shards.

    Raises:
        UsageError: the files are of different kinds, or from runs with different options.
        HarnessError: a file cannot be read, or is damaged.
    """
    if _find_common_kind(files) is kinds.RECORDS:
        return merge_records({displayed(path): read_records(path) for path in files})
    return merge_speeds({displayed(path): json_file.read(path) for path in files})


def _find_common_kind(files: Sequence[Path]) -> kinds.FileKind:
    kinds_by_name: dict[str, tuple[kinds.FileKind, Path]] = {}
    for path in files:
        try:
            name = kinds.describe(path)
        except FileFault as fault:
            raise UsageError(f"cannot read {fault}") from None
        kind = next((kind for kind in KINDS if kind.name == name), None)
        if kind is None:
            raise UsageError(
                f"cannot merge {displayed(path)}: the file is {name}; give files of "
                "'harness check --records', or files of 'harness bench --records'"
            )
        kinds_by_name.setdefault(kind.name, (kind, path))
    (first, path), *others = kinds_by_name.values()
    if others:
        other, second = others[0]
        raise UsageError(
            f"{displayed(path)} is {first.name}, and {displayed(second)} is {other.name}: give "
            "files of the same kind"
        )
    return first
