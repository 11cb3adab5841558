"""Taking up a run that was cut off: cells that had ended come back from the record file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from harness.checking.options import DECIDING
from harness.checking.provenance import LIMITED, LIMITS, Greetings, changes
from harness.checking.request import Request, given_record
from harness.errors import UsageError
from harness.files.user_file import displayed
from harness.results.cell import Cell, CellResult
from harness.results.file import Records, read_records
from harness.results.findings import VERDICTS, Verdict
from harness.results.lines import Head, RequestRecord


def request_record(request: Request) -> RequestRecord:
    """What all cells of two runs must share for those of one to stand in the other's report."""
    found = {one.name: getattr(request, one.name) for one in DECIDING}
    return RequestRecord(
        **{**found, "sizes": dict(sorted(request.sizes.items()))},
        against=request.against.record() if request.against else None,
        given=given_record(request.given) if request.given else None,
    )


def records_of(path: Path, request: Request) -> Records:
    """A record file of the same run; empty if there is none.

    Raises:
        RecordError: the file cannot be read, or a line of it has not the fields of its kind.
        UsageError: the file comes from a run with other sizes, checks or seed.
    """
    if not path.exists():
        return Records(())
    records = read_records(path)
    for head in records.of_kind(Head):
        _check_same_run(path, head, request)
    return records


def nothing_yet(path: Path) -> str:
    """In words, that a record file has nothing to take up, and which file that is."""
    return f"there are no records in {displayed(path.absolute())} yet: every cell is run"


def take_up(
    plan: Sequence[Cell],
    ended: Mapping[Cell, Iterable[CellResult]],
    signature: Callable[[Cell], Mapping[str, str]],
    greetings: Greetings,
    verdicts: Collection[Verdict] = VERDICTS,
) -> tuple[dict[Cell, CellResult], list[str]]:
    """The cells of a plan that need not be run again, and in words, why others must be.

    ``ended`` are the results of each that are known, the last one first: it is the likeliest, and
    its reason is told. The first that would be the same now decides, if its verdict is one of
    ``verdicts``. ``signature`` is what decides a cell's numbers now; ``greetings`` know of the
    workers.
    """
    kept: dict[Cell, CellResult] = {}
    reasons: Counter[str] = Counter()
    for cell in plan:
        told = ""
        for result in ended.get(cell, ()):
            reason = _reason_to_run(result, signature(cell), greetings)
            if reason:
                told = told or reason
                continue
            if result.contradicted:
                told = told or "its records contradict each other"
            elif result.verdict in verdicts:
                kept[cell] = result
            else:
                told = told or f"the last verdict is {result.verdict}"
            break
        if told and cell not in kept:
            reasons[told] += 1
    return kept, [
        f"{count} cells are run again: {reason}" if count > 1 else f"1 cell is run again: {reason}"
        for reason, count in reasons.items()
    ]


def _reason_to_run(result: CellResult, now: Mapping[str, str], greetings: Greetings) -> str:
    """Why a cell must be run again; empty if all that decides its numbers is as it was."""
    if result.signature is None or result.greeting is None:
        return "the record file does not say under what it was run"
    wanted = dict(now)
    if not LIMITED & {finding.verdict for finding in result.findings}:
        # What was decided within a limit is decided.
        wanted |= {name: text for name, text in result.signature.items() if name in LIMITS}
    differing = changes(result.signature, wanted)
    if not differing:
        differing = changes(result.greeting, greetings.now(result.cell.backend, result.greeting))
    return ", ".join(differing)


def _check_same_run(path: Path, head: Head, request: Request) -> None:
    asked = request_record(request)
    if head.request != asked:
        wanted, before = asked.plain(), head.request.plain() if head.request else {}
        found = [
            f"{name} {json.dumps(before.get(name))}, now {json.dumps(wanted.get(name))}"
            for name in dict.fromkeys([*before, *wanted])
            if before.get(name) != wanted.get(name)
        ]
        raise UsageError(
            f"{path} holds a run with other options ({'; '.join(found)}): give the same ones, or "
            "another record file"
        )
