"""Reuse of results from a folder of record files: cells that agreed do not run again until
something changes.

A result is reused only if nothing has changed that its numbers depend on: the request, and the
signature and greeting of :mod:`harness.checking.provenance`. Of several runs under the same
conditions, the last one decides, whatever the order of files and lines.

- A cell runs again if its last run did not pass. If two runs began in the same second, a run that
  did not pass counts as the last.
- A run that began in the future had a wrong clock, so its passing results are ignored.
- The lines of a cell carry a checksum, so that incomplete or edited lines are ignored.
- Unreadable files are reported and skipped. At worst, more cells run than necessary.
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
# Results with these verdicts are reused. Cells that differ or could not run always run again.
KEPT: frozenset[Verdict] = frozenset({"agree", "known-difference"})


def read(folder: Path, request: Request) -> tuple[dict[Cell, list[CellResult]], list[str]]:
    """Return the results in a folder of record files from runs with the same request; for each
    cell, the last run comes first.

    Also return texts about the files and cells that are ignored.

    Raises:
        UsageError: the path is no folder.
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
        # Results whose checksum matches their lines.
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
    """Return the last line of a cell, with a checksum of all lines of the cell."""
    content = hashlib.sha256()
    # The checksum leaves out the blame, which a later cell may change, and the fields that
    # ``harness merge`` adds.
    for line in (begin, *results, end):
        fields = {n: v for n, v in line.plain().items() if n not in ("copy", "started", "checksum")}
        fields |= {"blame": None} if line is end else {}
        content.update(encoded(dict(sorted(fields.items()))))
    return end.model_copy(update={"checksum": content.hexdigest()})


def cell_lines(begin: Begin, result: CellResult) -> list[CellLine]:
    """Return all lines of a cell; the last line has the checksum of all lines."""
    results = [*results_of(result)]
    return [begin, *results, sealed(begin, results, End.of(result))]


def new_file(folder: Path) -> Path:
    """Return the path of a new file in a history folder, for the results of this run; create the
    folder.

    Raises:
        UsageError: the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {displayed(folder)}: {error.strerror}") from None
    return folder / f"{_now().replace(':', '-')}-{os.getpid()}{SUFFIX}"


def days(results: Sequence[CellResult]) -> Iterator[str]:
    """Yield the number of reused cells per day: ``8 from 2026-11-26``."""
    counts = Counter(result.since[:10] for result in results)
    yield from (f"{count} from {day}" for day, count in sorted(counts.items()))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# An interrupted run is resumed from its record file, which has the finished cells.


def request_record(request: Request) -> RequestRecord:
    """Return the settings that two runs must share if one run may reuse results of the other."""
    found = {one.name: getattr(request, one.name) for one in DECIDING}
    return RequestRecord(
        **{**found, "sizes": dict(sorted(request.sizes.items()))},
        against=request.against.record() if request.against else None,
        given=given_record(request.given) if request.given else None,
    )


def records_of(path: Path, request: Request) -> Records:
    """Read the record file of a run with the same request; return empty records if there is no
    file.

    Raises:
        RecordError: the file cannot be read, or a line lacks fields of its kind.
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
    """Return the text for a record file without results to resume from."""
    return f"there are no records in {displayed(path.absolute())} yet: every cell is run"


def take_up(
    plan: Sequence[Cell],
    ended: Mapping[Cell, Iterable[CellResult]],
    signature: Callable[[Cell], Mapping[str, str]],
    greetings: Greetings,
    verdicts: Collection[Verdict] = VERDICTS,
) -> tuple[dict[Cell, CellResult], list[str]]:
    """Return the results of a plan's cells that need no new run, and texts that say why other cells
    run again.

    For each cell, ``ended`` has its known results, the last one first. The first of them with
    today's signature and greeting is reused, if its verdict is in ``verdicts``. ``signature``
    returns a cell's signature today, and ``greetings`` the greetings of today's workers.
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
    """Return why a cell must run again; an empty text if its signature and greeting are
    unchanged."""
    if result.signature is None or result.greeting is None:
        return "the record file does not say under what it was run"
    wanted = dict(now)
    if not LIMITED & {finding.verdict for finding in result.findings}:
        # If no check ran into a limit of time or memory, changed limits do not matter.
        wanted |= {name: text for name, text in result.signature.items() if name in LIMITS}
    differing = changes(result.signature, wanted)
    if not differing:
        differing = changes(result.greeting, greetings.now(result.cell.backend, result.greeting))
    return ", ".join(differing)


def again(cell: Cell, head: Head | None, checks: Sequence[str] = ()) -> list[str]:
    """Return the words of the command that runs a cell again, with the options of the run that has
    this head. If ``checks`` is empty, the command names the same checks as that run."""
    head = head or Head.model_construct(environment={})
    request = head.request or RequestRecord()
    own = request.against
    # A user's own model has a name such as ``torch@model.Gru``; its backend is the part before @.
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
    """Return the command-line words of ``check`` for options, which are given by field name."""
    known = {one.name: one for one in options_of(CheckOptions)}
    return [word for name, value in values.items() for word in known[name].words(value)]
