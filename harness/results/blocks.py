"""The lines of a record file, as results again; those of several machines or versions apart."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from harness.errors import UsageError
from harness.results.cell import Cell, CellResult
from harness.results.environment import Machine
from harness.results.file import Records
from harness.results.findings import Verdict
from harness.results.lines import Begin, BlameLine, End, Head, Result
from harness.runs.merged import origin_label


@dataclass(frozen=True)
class CellOrigin:
    """Where a cell was run: a machine, by its identity and its name, and the framework's version.

    ``copy`` counts results of the same origin that contradict each other, in files that were
    merged; it is 1 elsewhere.
    """

    machine: str
    host: str
    version: str
    copy: int = 1


@dataclass(frozen=True)
class CellBlock:
    """The lines of a cell from begin to end, and the head of their run."""

    begin: Begin
    results: Sequence[Result]
    end: End
    head: Head | None

    @property
    def cell(self) -> Cell:
        """The cell that they are about."""
        return self.begin.cell

    @property
    def origin(self) -> CellOrigin:
        """Where it was run."""
        version = self.results[-1].backend_version if self.results else ""
        return replace(_place(self.begin, self.head), version=version)

    @property
    def began(self) -> str:
        """When the run began that decided it."""
        # In a file of several runs that were merged the head is that of the last.
        begin, head = self.begin, self.head
        return begin.since or begin.started or (head.started if head else "")

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict of each check."""
        return {line.check: line.verdict for line in self.results}

    def result(self) -> CellResult:
        """What came of the cell."""
        end = self.end
        found = CellResult(self.cell, seconds=end.seconds, location=end.location, kept=True)
        found.signature, found.greeting = self.begin.signature, end.greeting
        found.could_not_run, found.not_compared = end.could_not_run, end.not_compared or ()
        found.divergence, found.blame = end.divergence, end.blame
        found.findings = [line.finding for line in self.results]
        for line in self.results[-1:]:
            found.version, found.layers = line.backend_version, line.layers
        found.since, found.remembered = self.began, self.begin.since is not None
        return found


def _place(begin: Begin, head: Head | None) -> CellOrigin:
    """Where a cell was begun; which version of the framework it is shows in its results only."""
    said = begin.signature or {}
    run_on = head.machine if head else Machine()
    host = said.get("host", run_on.host)
    machine = said.get("machine") or run_on.id or host
    return CellOrigin(machine, host, "", begin.copy_)


@dataclass(frozen=True)
class _Blocks:
    """What :func:`blocks` gives of a file, and all of its cells that ended, in its order."""

    cells: Mapping[Cell, Mapping[CellOrigin, CellBlock]]
    every: Sequence[CellBlock]


# Those of records that somebody holds: several readers ask for those of one file.
_blocks: WeakKeyDictionary[Records, _Blocks] = WeakKeyDictionary()
_ended: WeakKeyDictionary[Records, dict[Cell, CellResult]] = WeakKeyDictionary()


def blocks(records: Records) -> Mapping[Cell, Mapping[CellOrigin, CellBlock]]:
    """The cells that are there from begin to end, each from every origin.

    Of a cell that is there several times from one origin, the last run counts; one that began
    again there and was cut off is not there. Made once for each file that was read.
    """
    return _blocks_of(records).cells


def every_block(records: Records) -> list[CellBlock]:
    """Those of :func:`blocks`, and of their cells also those that a later run in the file replaces:
    files that were joined are not in the order of time."""
    found = _blocks_of(records)
    return [block for block in found.every if block.cell in found.cells]


def _blocks_of(records: Records) -> _Blocks:
    found = _blocks.get(records)
    if found is None:
        found = _blocks[records] = _read_blocks(records)
    return found


def _read_blocks(records: Records) -> _Blocks:
    every: list[CellBlock] = []
    found: dict[Cell, dict[CellOrigin, CellBlock]] = {}
    begun: dict[Cell, tuple[Begin, list[Result], list[CellBlock]]] = {}
    head: Head | None = None
    # Of cells that have not ended, what a later one has told of them.
    told: dict[Cell, BlameLine] = {}
    for line in records.lines:
        match line:
            case Head():
                head = line
            case BlameLine(cell=cell):
                if cell in begun:
                    told[cell] = line
                elif origins := found.get(cell):
                    origin, block = [*origins.items()][-1]
                    end = block.end.model_copy(update={"blame": line.blame})
                    origins[origin] = replace(block, end=end)
            case Begin(cell=cell):
                again = _again(found.get(cell, {}), _place(line, head))
                begun[cell] = line, [], again
                told.pop(cell, None)
            case Result(cell=cell) if cell in begun:
                begun[cell][1].append(line)
            case End(cell=cell) if cell in begun:
                begin, results, before = begun.pop(cell)
                if cell in told:
                    line = line.model_copy(update={"blame": told.pop(cell).blame})
                block = CellBlock(begin, results, line, head)
                every.append(block)
                origins = found.setdefault(cell, {})
                version = block.origin.version
                for older in before:
                    if version and older.origin.version not in ("", version):
                        origins[older.origin] = older
                origins[block.origin] = block
    return _Blocks({cell: origins for cell, origins in found.items() if origins}, every)


def _again(origins: dict[CellOrigin, CellBlock], origin: CellOrigin) -> list[CellBlock]:
    """Take out what a cell that begins again may replace: which version it is of shows at its
    end only."""
    same = [o for o in origins if (o.machine, o.copy) == (origin.machine, origin.copy)]
    return [origins.pop(each) for each in same[-1:]]


def last_first(
    cells: Mapping[Cell, Mapping[CellOrigin, CellBlock]],
) -> dict[Cell, Iterator[CellResult]]:
    """The results of :func:`blocks` from all origins, the last that began first; each can be gone
    through once."""
    return {cell: _last_first(origins) for cell, origins in cells.items()}


def _last_first(origins: Mapping[CellOrigin, CellBlock]) -> Iterator[CellResult]:
    copied = {replace(origin, copy=1) for origin in origins if origin.copy > 1}
    for origin, block in reversed([*origins.items()]):
        found = block.result()
        found.contradicted = replace(origin, copy=1) in copied
        yield found


def ended(records: Records) -> Mapping[Cell, CellResult]:
    """The cells of :func:`blocks`; where one is there from several origins, each with the origin
    in the name of its backend. Made once, too."""
    found = _ended.get(records)
    if found is None:
        found = _ended[records] = apart(blocks(records))[0]
    return found


def of_machine(records: Records, machine: str, what: str) -> dict[Cell, CellResult]:
    """The cells of :func:`blocks`, each from the last version that this machine ran it with, or the
    only other machine that did.

    Raises:
        UsageError: one was run on several machines, and not on this one.
    """
    found = {}
    for cell, origins in blocks(records).items():
        machines = {origin.machine for origin in origins}
        wanted = machine if machine in machines else next(iter(machines))
        if wanted != machine and len(machines) > 1:
            hosts = ", ".join(sorted({origin.host for origin in origins}))
            raise UsageError(
                f"{what} holds {cell} from {len(machines)} machines ({hosts}), and this is none of "
                "them: give the records of one"
            )
        found[cell] = [b for o, b in origins.items() if o.machine == wanted][-1].result()
    return found


def comparable(*files: Records) -> list[dict[Cell, CellResult]]:
    """The cells of files that are compared, each from the last version that a machine ran it with;
    where one is there from several machines, each has the machine in the name of its backend."""
    found = []
    for records in files:
        newest: dict[Cell, dict[CellOrigin, CellBlock]] = {}
        for cell, origins in blocks(records).items():
            last = {(o.machine, o.copy): (o, block) for o, block in origins.items()}
            newest[cell] = dict(last.values())
        found.append(newest)
    return apart(*found, versions=False)


def apart(
    *files: Mapping[Cell, Mapping[CellOrigin, CellBlock]], versions: bool = True
) -> list[dict[Cell, CellResult]]:
    """The results by cell. A backend one of whose cells is there from several origins has, in all
    cells of all files, a name for each."""
    several: dict[str, set[str]] = {}
    for cells in files:
        for cell, origins in cells.items():
            for part in ("machine", "version", "copy"):
                if len({getattr(origin, part) for origin in origins}) > 1:
                    several.setdefault(cell.backend, set()).add(part)
    hosts: dict[str, set[str]] = {}
    for origin in (o for cells in files for origins in cells.values() for o in origins):
        hosts.setdefault(origin.host, set()).add(origin.machine)
    named = []
    for cells in files:
        results: dict[Cell, CellResult] = {}
        for cell, origins in cells.items():
            for origin, block in origins.items():
                result = block.result()
                parts = several.get(cell.backend, set()) - (set() if versions else {"version"})
                result.cell = replace(cell, backend=_named(cell.backend, origin, parts, hosts))
                results[result.cell] = result
        named.append(results)
    return named


def _named(
    backend: str, origin: CellOrigin, parts: Collection[str], hosts: Mapping[str, Collection[str]]
) -> str:
    """A backend's name, with those parts of an origin that tell it from others."""
    return backend + origin_label(
        version=(origin.version or "not started") if "version" in parts else None,
        host=origin.host if "machine" in parts else None,
        machine=origin.machine if len(hosts[origin.host]) > 1 else None,
        copy=origin.copy if "copy" in parts else 1,
    )


def cut_off(records: Records) -> list[Cell]:
    """The cells that began and are not among those that ended."""
    found = blocks(records)
    return [cell for cell in begun_in(records) if cell not in found]


def begun_in(records: Records) -> dict[Cell, Begin]:
    """The cells that began, whether they ended or not, each with the last of its beginnings."""
    return {line.cell: line for line in records.of_kind(Begin)}


def stopped(records: Records) -> str:
    """In words, how far the last run of a file came that did not come to its end; else empty."""
    planned = done = 0
    for line in records.lines:
        if isinstance(line, Head):
            planned, done = line.planned or 0, 0
        done += isinstance(line, End)
    return f"stopped after {done} of {planned} cells" if done < planned else ""
