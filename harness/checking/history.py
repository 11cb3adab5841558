"""A folder of record files as what is known already: cells that agreed are not run again while all
that decides their numbers is as it was.

A kept cell stands for a run of today only if nothing it depends on has changed: the signature and
the greeting of :mod:`harness.checking.provenance`, and the request. The last run in that state
decides, whatever the order of files and lines; one that did not pass is run again, and of runs
that began in one second one that did not pass is the last. What began later than now did so under
a clock that was put back, and passes for nothing. The lines of a cell carry a checksum, so that
what was torn or edited counts for nothing. Whatever cannot be read is told and passed over: the
worst that a history can do is that more is run.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.checking.provenance import Greetings
from harness.checking.request import Request
from harness.checking.resume import request_record, take_up
from harness.errors import UsageError, several
from harness.files.user_file import displayed
from harness.results.blocks import CellBlock, every_block
from harness.results.cell import Cell, CellResult
from harness.results.file import RecordError, encoded, read_records
from harness.results.findings import Verdict
from harness.results.lines import Begin, CellLine, End, Result, results_of

SUFFIX = ".jsonl"
# What is taken at its word. What differs, and what could not be run, is looked at again.
KEPT: frozenset[Verdict] = frozenset({"agree", "known-difference"})


@dataclass
class KnownCells:
    """What a folder holds of a request's cells, the last run of each first."""

    cells: Mapping[Cell, Sequence[CellResult]] = field(default_factory=dict)
    passed_over: Sequence[str] = ()
    """In words, files and cells that are not taken for what they say."""

    def known(
        self,
        plan: Sequence[Cell],
        signature: Callable[[Cell], Mapping[str, str]],
        greetings: Greetings,
    ) -> tuple[dict[Cell, CellResult], list[str]]:
        """The cells of a plan that need not be run, and in words, why others of it must be."""
        kept, reasons = take_up(plan, self.cells, signature, greetings, KEPT)
        return kept, [*self.passed_over, *reasons]


def read(folder: Path, request: Request) -> KnownCells:
    """What the record files of a folder hold of runs with the same request.

    Raises:
        UsageError: it is no folder.
    """
    if not os.path.lexists(folder):
        return KnownCells()
    if not folder.is_dir():
        raise UsageError(f"--history takes a folder of records, and {displayed(folder)} is none")
    wanted = request_record(request)
    found: list[CellResult] = []
    passed_over: list[str] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            records = read_records(path)
        except RecordError as error:
            passed_over.append(f"passed over in the history: {error}")
            continue
        every = every_block(records)
        whole = [block for block in every if _is_whole(block)]
        results = [block.result() for block in whole if block.head and block.head.request == wanted]
        broken = len(every) - len(whole)
        passed_over += _passed_over(broken, path, "whose checksum is wrong")
        now = _now()
        known = [result for result in results if result.since <= now or result.verdict not in KEPT]
        later = len(results) - len(known)
        passed_over += _passed_over(later, path, f"which began later than now, {now}")
        found += known
    return KnownCells(_last_first(found), tuple(passed_over))


def _passed_over(count: int, path: Path, why: str) -> Iterator[str]:
    if count:
        cells = several(count, "cell")
        yield f"passed over in the history: {cells} of {displayed(path)}, {why}"


def _last_first(results: Iterable[CellResult]) -> dict[Cell, list[CellResult]]:
    cells: dict[Cell, list[CellResult]] = {}
    for result in sorted(results, key=lambda r: (r.since, r.verdict not in KEPT), reverse=True):
        cells.setdefault(result.cell, []).append(result)
    return cells


def sealed(begin: Begin, results: Sequence[Result], end: End) -> End:
    """The last of a cell's lines, with a checksum of them all."""
    content = hashlib.sha256()
    # Who is to blame may be told anew by a later cell, and merging tells runs and copies apart.
    for line in (begin, *results, end):
        fields = {n: v for n, v in line.plain().items() if n not in ("copy", "started", "checksum")}
        fields |= {"blame": None} if line is end else {}
        content.update(encoded(dict(sorted(fields.items()))))
    return end.model_copy(update={"checksum": content.hexdigest()})


def cell_lines(begin: Begin, result: CellResult) -> list[CellLine]:
    """All lines of a cell, the last with the checksum of all."""
    results = [*results_of(result)]
    return [begin, *results, sealed(begin, results, End.of(result))]


def new_file(folder: Path) -> Path:
    """Where a run writes what it adds to a history; the folder is made if it is not there.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {displayed(folder)}: {error.strerror}") from None
    return folder / f"{_now().replace(':', '-')}-{os.getpid()}{SUFFIX}"


def days(results: Sequence[CellResult]) -> Iterator[str]:
    """In words, from which days the kept cells are: ``8 from 2026-11-26``."""
    counts = Counter(result.since[:10] for result in results)
    yield from (f"{count} from {day}" for day, count in sorted(counts.items()))


def _now() -> str:
    """The time, as a head has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _is_whole(block: CellBlock) -> bool:
    """Whether a cell's lines are those that were written."""
    return sealed(block.begin, block.results, block.end).checksum == block.end.checksum
