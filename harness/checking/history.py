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
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from harness.checking.options import DECIDING, CheckOptions
from harness.checking.provenance import LIMITED, LIMITS, Greetings, changes
from harness.checking.request import Request, given_record
from harness.command.declared import options_of
from harness.errors import UsageError, several
from harness.files.user_file import displayed
from harness.results.cell import Cell, CellResult
from harness.results.file import RecordError, encoded, read_records
from harness.results.findings import VERDICTS, Verdict
from harness.results.lines import Begin, CellLine, End, Head, RequestRecord, Result, results_of
from harness.results.records import Records
from harness.runtime.labels import backend_of

SUFFIX = ".jsonl"
# What is taken at its word. What differs, and what could not be run, is looked at again.
KEPT: frozenset[Verdict] = frozenset({"agree", "known-difference"})


def read(folder: Path, request: Request) -> tuple[dict[Cell, list[CellResult]], list[str]]:
    """What the record files of a folder hold of runs with the same request, the last run of each
    cell first; and in words, files and cells that are not taken for what they say.

    Raises:
        UsageError: it is no folder.
    """
    cells: dict[Cell, list[CellResult]] = {}
    passed_over: list[str] = []
    if not os.path.lexists(folder):
        return cells, passed_over
    if not folder.is_dir():
        raise UsageError(f"--history takes a folder of records, and {displayed(folder)} is none")
    wanted = request_record(request)
    found: list[CellResult] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            every = read_records(path).every_block
        except RecordError as error:
            passed_over.append(f"passed over in the history: {error}")
            continue
        # The blocks whose lines are those that were written.
        whole = [b for b in every if sealed(b.begin, b.results, b.end).checksum == b.end.checksum]
        results = [block.result() for block in whole if block.head and block.head.request == wanted]
        now = _now()
        known = [result for result in results if result.since <= now or result.verdict not in KEPT]
        for count, why in (
            (len(every) - len(whole), "whose checksum is wrong"),
            (len(results) - len(known), f"which began later than now, {now}"),
        ):
            if count:
                of = f"{several(count, 'cell')} of {displayed(path)}"
                passed_over.append(f"passed over in the history: {of}, {why}")
        found += known
    for result in sorted(found, key=lambda r: (r.since, r.verdict not in KEPT), reverse=True):
        cells.setdefault(result.cell, []).append(result)
    return cells, passed_over


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


# Taking up a run that was cut off: cells that had ended come back from the record file.


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
    asked = request_record(request)
    for head in records.of_kind(Head):
        if head.request != asked:
            wanted, before = asked.plain(), head.request.plain() if head.request else {}
            found = [
                f"{name} {json.dumps(before.get(name))}, now {json.dumps(wanted.get(name))}"
                for name in dict.fromkeys([*before, *wanted])
                if before.get(name) != wanted.get(name)
            ]
            raise UsageError(
                f"{path} holds a run with other options ({'; '.join(found)}): give the same ones, "
                "or another record file"
            )
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


def again(cell: Cell, head: Head | None, checks: Sequence[str] = ()) -> list[str]:
    """The words of the command that runs a cell once more, as the run with this head did.

    With ``checks``, only those; else the ones that the run was asked for.
    """
    head = head or Head.model_construct(environment={})
    request = head.request or RequestRecord()
    own = request.against
    # The column of a user's own model is no backend to ask for; what stands before its @ is.
    backend = backend_of(cell.backend) if own else cell.backend
    spec, environment = head.sources.get(cell.spec, cell.spec), head.environment
    words = ["harness", "check", spec, "--backend", backend, "--dtype", cell.dtype]
    words += _words(paths=[cell.path], device=cell.device)
    words += [word for option in (*head.files.items(), *head.limits.items()) for word in option]
    mapped = {"maps": own.map, "takes": own.takes, "returns": own.returns} if own else {}
    variables = [f"{backend}:{n}={v}" for n, v in environment.get(cell.backend, {}).items()]
    words += _words(**mapped, folders=head.folders, environment=variables)
    asked = request.model_copy(update={"checks": checks}) if checks else request
    return words + [word for one in DECIDING for word in one.words(getattr(asked, one.name, None))]


def _words(**values: object) -> list[str]:
    """The words of a command for options of ``check``, by field."""
    known = {one.name: one for one in options_of(CheckOptions)}
    return [word for name, value in values.items() for word in known[name].words(value)]
