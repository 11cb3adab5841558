"""Content of a record file: its lines, and the results of its cells by machine and framework
version."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from harness.errors import UsageError
from harness.results.cell import Cell, CellResult
from harness.results.environment import Machine
from harness.results.findings import Verdict
from harness.results.lines import Begin, BlameLine, End, Head, RecordLine, Result

L = TypeVar("L", bound=RecordLine)


@dataclass(frozen=True)
class CellOrigin:
    """The origin of a result: the machine (its identifier and host name) and the framework version
    that computed it.

    In merged files, the second of two contradicting results with the same origin has ``copy`` 2,
    and so on. In all other cases, ``copy`` is 1.
    """

    machine: str
    host: str
    version: str
    copy: int = 1


@dataclass(frozen=True)
class CellBlock:
    """The lines about one cell from one run: the line ``begin``, a line for each check, and the
    line ``end``. ``head`` is the first line of the run."""

    begin: Begin
    results: Sequence[Result]
    end: End
    head: Head | None

    @property
    def cell(self) -> Cell:
        """The cell that the lines are about."""
        return self.begin.cell

    @property
    def origin(self) -> CellOrigin:
        """The machine and the framework version that ran the cell."""
        version = self.results[-1].backend_version if self.results else ""
        return replace(_origin_of(self.begin, self.head), version=version)

    @property
    def began(self) -> str:
        """The start time of the run that produced the cell's verdict."""
        # In a merged file, the head is the head of the last run.
        begin, head = self.begin, self.head
        return begin.since or begin.started or (head.started if head else "")

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """A dictionary from check to verdict."""
        return {line.check: line.verdict for line in self.results}

    @property
    def model(self) -> str | None:
        """A text that identifies the cell's model (e.g. to find that a spec has changed); None if
        the run did not record it."""
        signature = self.begin.signature or {}
        return f"{signature['spec']} {signature.get('sizes', '')}" if "spec" in signature else None

    def result(self) -> CellResult:
        """Return the result of the cell, made from its lines."""
        end = self.end
        found = CellResult(self.cell, seconds=end.seconds, location=end.location, kept=True)
        found.signature, found.greeting = self.begin.signature, end.greeting
        found.could_not_run, found.not_compared = end.could_not_run, end.not_compared or ()
        found.divergence, found.blame = end.divergence, end.blame
        found.place, found.named_layers = end.place or "", end.layers or ()
        found.blamed_layers = end.blamed or ()
        found.findings = [line.finding for line in self.results]
        for line in self.results[-1:]:
            found.version, found.layers = line.backend_version, line.layers
        found.since, found.remembered = self.began, self.begin.since is not None
        return found


def _origin_of(begin: Begin, head: Head | None) -> CellOrigin:
    """Return the origin (machine and version) of a cell, given its first line. The version stays
    empty, because only the lines with results contain it."""
    signature = begin.signature or {}
    run_on = head.machine if head else Machine()
    host = signature.get("host", run_on.host)
    machine = signature.get("machine") or run_on.id or host
    return CellOrigin(machine, host, "", begin.copy_)


# Complete cells; each cell maps an origin to the lines of its last run there.
Origins = Mapping[Cell, Mapping[CellOrigin, CellBlock]]


@dataclass(frozen=True, eq=False)
class Records:
    """The lines of a record file, in file order. Lines of unknown kinds are left out.

    ``torn`` is the last line if a killed writer left it incomplete, else None. ``repaired`` has
    incomplete lines in the middle of the file; after each of them, a later writer continued.
    """

    lines: tuple[RecordLine, ...]
    torn: str | None = None
    repaired: tuple[str, ...] = ()

    def of_kind(self, kind: type[L]) -> list[L]:
        """Return the lines of the class ``kind``, in file order."""
        return [line for line in self.lines if isinstance(line, kind)]

    @property
    def head(self) -> Head | None:
        """The head (first line) of the last run; None if the file has no head."""
        return next(reversed(self.of_kind(Head)), None)

    @property
    def cells(self) -> Origins:
        """The finished cells. Each maps an origin (machine and framework version) to the lines of
        its last run there.

        If the last run was interrupted in a cell, the cell has no result of this origin, even if an
        earlier run finished it.
        """
        return self._blocks[0]

    @property
    def every_block(self) -> list[CellBlock]:
        """The lines of each run of the cells in :attr:`cells`, including results that a later run
        replaced."""
        return [block for block in self._blocks[1] if block.cell in self.cells]

    @cached_property
    def ended(self) -> Mapping[Cell, CellResult]:
        """The results of the cells in :attr:`cells`. If a backend was run on several machines or
        versions, a cell has one result for each of them. The backend's name then contains machine
        or version."""
        return separate_origins(self.cells)[0]

    @cached_property
    def begun(self) -> dict[Cell, Begin]:
        """A dictionary from each cell that began to the line with which its last run began. The
        cell may have ended or not."""
        return {line.cell: line for line in self.of_kind(Begin)}

    @property
    def cut_off(self) -> list[Cell]:
        """The cells that began but did not end."""
        return [cell for cell in self.begun if cell not in self.cells]

    @property
    def stopped(self) -> str:
        """Text such as "stopped after 3 of 10 cells" if the last run was interrupted; otherwise an
        empty text."""
        planned = done = 0
        for line in self.lines:
            if isinstance(line, Head):
                planned, done = line.planned or 0, 0
            done += isinstance(line, End)
        return f"stopped after {done} of {planned} cells" if done < planned else ""

    def of_machine(self, machine: str, what: str) -> dict[Cell, CellResult]:
        """Return a dictionary from cell to the newest result that the machine with the identifier
        ``machine`` computed. ``what`` names the file in the error message.

        If a cell was run only on one other machine, its result from that machine is used.

        Raises:
            UsageError: a cell was run on several machines, but not on this machine.
        """
        results = {}
        for cell, origins in self.cells.items():
            machines = {origin.machine for origin in origins}
            chosen = machine if machine in machines else next(iter(machines))
            if chosen != machine and len(machines) > 1:
                hosts = ", ".join(sorted({origin.host for origin in origins}))
                raise UsageError(
                    f"{what} contains {cell} from {len(machines)} machines ({hosts}), but not from "
                    "this machine: give the records of only one machine"
                )
            results[cell] = [b for o, b in origins.items() if o.machine == chosen][-1].result()
        return results

    @cached_property
    def _blocks(self) -> tuple[Origins, list[CellBlock]]:
        """Two values: the finished cells by origin (machine and version), as in :attr:`cells`; and
        the lines of each finished run of a cell, in file order."""
        every: list[CellBlock] = []
        by_cell: dict[Cell, dict[CellOrigin, CellBlock]] = {}
        begun: dict[Cell, tuple[Begin, list[Result], list[CellBlock]]] = {}
        head: Head | None = None
        # Blame that a later line assigns to a cell before the cell has ended.
        later_blame: dict[Cell, BlameLine] = {}
        for line in self.lines:
            match line:
                case Head():
                    head = line
                case BlameLine(cell=cell):
                    if cell in begun:
                        later_blame[cell] = line
                    elif origins := by_cell.get(cell):
                        origin, block = [*origins.items()][-1]
                        end = block.end.model_copy(update={"blame": line.blame})
                        origins[origin] = replace(block, end=end)
                case Begin(cell=cell):
                    again = _pop_older_block(by_cell.get(cell, {}), _origin_of(line, head))
                    begun[cell] = line, [], again
                    later_blame.pop(cell, None)
                case Result(cell=cell) if cell in begun:
                    begun[cell][1].append(line)
                case End(cell=cell) if cell in begun:
                    begin, results, before = begun.pop(cell)
                    if cell in later_blame:
                        line = line.model_copy(update={"blame": later_blame.pop(cell).blame})
                    block = CellBlock(begin, results, line, head)
                    every.append(block)
                    origins = by_cell.setdefault(cell, {})
                    version = block.origin.version
                    for older in before:
                        if version and older.origin.version not in ("", version):
                            origins[older.origin] = older
                    origins[block.origin] = block
        return {cell: origins for cell, origins in by_cell.items() if origins}, every


def _pop_older_block(origins: dict[CellOrigin, CellBlock], origin: CellOrigin) -> list[CellBlock]:
    """Remove and return the newest result of a cell from the machine of ``origin``, because the
    cell begins to run again there.

    The framework version of the new run becomes known only when the cell ends. If it differs from
    the version of the old result, the caller puts the old result back.
    """
    same = [o for o in origins if (o.machine, o.copy) == (origin.machine, origin.copy)]
    return [origins.pop(each) for each in same[-1:]]


def results_newest_first(cells: Origins) -> dict[Cell, Iterator[CellResult]]:
    """Return a dictionary from each cell to an iterator over its results from all origins (machines
    and versions), newest first."""
    return {cell: _newest_first(origins) for cell, origins in cells.items()}


def _newest_first(origins: Mapping[CellOrigin, CellBlock]) -> Iterator[CellResult]:
    copied = {replace(origin, copy=1) for origin in origins if origin.copy > 1}
    for origin, block in reversed([*origins.items()]):
        result = block.result()
        result.contradicted = replace(origin, copy=1) in copied
        yield result


def newest_results(*files: Records) -> list[dict[Cell, CellResult]]:
    """Return a dictionary for each file: from cell to its newest result. If a cell was run on
    several machines, there is one result per machine, and the backend's name contains the machine.
    """
    by_file = []
    for records in files:
        newest: dict[Cell, dict[CellOrigin, CellBlock]] = {}
        for cell, origins in records.cells.items():
            last = {(o.machine, o.copy): (o, block) for o, block in origins.items()}
            newest[cell] = dict(last.values())
        by_file.append(newest)
    return separate_origins(*by_file, versions=False)


def separate_origins(*files: Origins, versions: bool = True) -> list[dict[Cell, CellResult]]:
    """Return a dictionary for each file: from cell to result. If a backend was run on several
    machines or versions, it gets a different name for each of them, e.g. ``torch on my-host``. With
    ``versions=False``, versions do not change the name."""
    several: dict[str, set[str]] = {}
    for cells in files:
        for cell, origins in cells.items():
            for part in ("machine", "version", "copy"):
                if len({getattr(origin, part) for origin in origins}) > 1:
                    several.setdefault(cell.backend, set()).add(part)
    hosts: dict[str, set[str]] = {}
    for origin in (o for cells in files for origins in cells.values() for o in origins):
        hosts.setdefault(origin.host, set()).add(origin.machine)
    results_by_file = []
    for cells in files:
        results: dict[Cell, CellResult] = {}
        for cell, origins in cells.items():
            for origin, block in origins.items():
                result = block.result()
                parts = several.get(cell.backend, set()) - (set() if versions else {"version"})
                result.cell = replace(
                    cell, backend=_backend_name(cell.backend, origin, parts, hosts)
                )
                results[result.cell] = result
        results_by_file.append(results)
    return results_by_file


def _backend_name(
    backend: str, origin: CellOrigin, parts: Collection[str], hosts: Mapping[str, Collection[str]]
) -> str:
    return backend + origin_label(
        version=(origin.version or "not started") if "version" in parts else None,
        host=origin.host if "machine" in parts else None,
        machine=origin.machine if len(hosts[origin.host]) > 1 else None,
        copy=origin.copy if "copy" in parts else 1,
    )


def origin_label(
    *,
    version: str | None = None,
    host: str | None = None,
    machine: str | None = None,
    copy: int = 1,
) -> str:
    """Return a label that tells apart results of the same backend from different machines or
    versions. It consists of the given parts, e.g. `` (2.6) on my-host``, and is added to the
    backend's name.

    ``machine`` is given if several machines have the same ``host``.
    """
    label = "" if version is None else f" ({version})"
    if host is not None:
        label += f" on {host}" if machine is None else f" on {host} {machine[:6]}"
    return label if copy == 1 else f"{label}, copy {copy}"
