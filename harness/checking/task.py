"""Tasks: single cells with their options. A task can be stored, or sent to a machine that runs
it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import create_model

from harness.checking.history import cell_lines, make_request_record
from harness.checking.options import CellOptions
from harness.checking.reproducer import CellForm
from harness.checking.request import Request
from harness.checking.runner import CellRunner
from harness.command.declared import options_of
from harness.errors import UsageError
from harness.files.forms import Form, formed
from harness.oracle.threads import one_thread
from harness.results.cell import CELL_FIELDS, Cell, CellResult
from harness.results.file import RecordWriter
from harness.results.findings import PASSING, Finding, Verdict
from harness.results.lines import Begin, RecordLine, RequestRecord

# Options that are fields of a cell.
OF_A_CELL = frozenset({"specs", "backends", "paths", "device"})
# The options of a cell and their JSON types.
OPTIONS = {
    **{one.name: one.json_type for one in options_of(CellOptions) if one.name not in OF_A_CELL},
    "texts": "dict[str, str]",
    "service": "str",
}
# The JSON forms of the options and of a whole task; unknown fields are errors.
_FORMS: Any = {name: (f"{kind} | None", None) for name, kind in OPTIONS.items()}
_CLOSED = {"extra": "forbid"}
OptionsForm = create_model("OptionsForm", __base__=Form, __cls_kwargs__=_CLOSED, **_FORMS)
TaskForm = create_model(
    "TaskForm",
    __base__=CellForm,
    __cls_kwargs__=_CLOSED,
    source=(str, ...),
    options=(OptionsForm, ...),
)


@dataclass(frozen=True)
class Task:
    """A cell with everything that is needed to run it. A task is immutable, and can be hashed and
    pickled.

    ``source`` is the name of the spec, or the path of its file. ``options`` is a JSON text with the
    options of the request that differ from the defaults.
    """

    cell: Cell
    source: str
    options: str = "{}"

    def record(self) -> dict[str, object]:
        """Return the task as a dictionary that can be written as JSON."""
        return {
            **self.cell.record(),
            "source": self.source,
            "options": json.loads(self.options),
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """Make a task from the dictionary that :meth:`record` returns.

        Raises:
            UsageError: a field is missing or unknown, or has a wrong type.
        """
        try:
            plain = (
                {str(n): v for n, v in record.items()} if isinstance(record, Mapping) else record
            )
            formed(json.loads(_dump_json(plain)), TaskForm, "a cell")
        except TypeError as error:
            raise UsageError(f"a cell: {error}") from None
        except ValueError as error:
            raise UsageError(str(error)) from None
        cell = Cell(**{name: record[name] for name in CELL_FIELDS})
        return cls(cell, record["source"], _dump_json(record["options"]))

    @property
    def request(self) -> Request:
        """A request that has only this cell."""
        options: dict[str, object] = json.loads(self.options)
        arguments: dict[str, Any] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in options.items()
        }
        if "folders" in arguments:
            arguments["folders"] = tuple(map(Path, arguments["folders"]))
        cell = self.cell
        return Request((self.source,), (cell.backend,), device=cell.device, **arguments)

    def __str__(self) -> str:
        return str(self.cell)


@dataclass(frozen=True)
class CellReport:
    """A finished task: the task, its result, and the cell's lines in a record file as plain
    data."""

    task: Task
    result: CellResult
    lines: tuple[Mapping[str, object], ...]

    @property
    def verdict(self) -> Verdict:
        """The most serious verdict of the findings."""
        return self.result.verdict

    @property
    def agrees(self) -> bool:
        """True if the cell agrees, has only known differences, or had nothing to compare."""
        return self.verdict in PASSING

    @property
    def findings(self) -> list[Finding]:
        """The findings of the checks, in the order in which the checks ran."""
        return self.result.findings

    @property
    def seconds(self) -> float:
        """The duration of the cell's run in seconds, without the time to make the test case."""
        return self.result.seconds

    def __repr__(self) -> str:
        return f"<CellReport: {self.task}: {self.verdict} ({self.seconds:.2f} s)>"


class Workers:
    """Worker processes, one for each backend, that stay alive from cell to cell.

    When the ``with`` block of this context manager ends, the processes end too. Several threads may
    run cells of different backends at the same time. Cells of the same backend run one after the
    other. With ``records``, the lines of each cell are appended to this file. The lines are on the
    disk when :func:`harness.run_cell` returns.
    """

    def __init__(self, records: str | os.PathLike[str] | None = None) -> None:
        """Open the record file if ``records`` is given; no process starts yet.

        Raises:
            RecordError: the file cannot be written, or it is not a record file.
        """
        self._writer = None if records is None else RecordWriter(records)
        self._written: RequestRecord | None = None
        self._runners: dict[str, CellRunner] = {}
        self._turns: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, and close the record file."""
        for runner in self._runners.values():
            runner.close()
        self._runners.clear()
        if self._writer is not None:
            self._writer.close()

    def run(self, task: Task) -> CellReport:
        """Run a cell as ``harness check`` does, and return its report. Failures of the backend are
        part of the report.

        Raises:
            UsageError: an option is unknown, or the record file has cells with different options.
            HarnessError: the spec is invalid, or the records cannot be written.
        """
        runner = self.runner(task)
        with self._lock:
            turn = self._turns.setdefault((task.options, task.cell.backend), threading.Lock())
            self._begin_record(runner)
        with turn:
            begin = Begin.of(task.cell, runner.signature(task.cell))
            self._append(begin, durable=False)
            with one_thread():
                result = runner.run_cell(task.cell)
            _, *lines = cell_lines(begin, result)
            self._append(*lines)
        for finding in result.findings:
            finding.settle()
        result.outputs, result.values, result.witness = {}, {}, None
        return CellReport(task, result, tuple(line.plain() for line in (begin, *lines)))

    def runner(self, task: Task) -> CellRunner:
        """Return the object that runs a cell. Cells with the same options share this object and its
        test cases.

        Raises:
            UsageError: the cell has unknown options, or its source is a different spec.
            HarnessError: the spec is invalid.
        """
        with self._lock:
            runner = self._runners.get(task.options)
            if runner is None:
                runner = self._runners[task.options] = CellRunner(task.request, alone=True)
            runner.add_cell(task.cell, task.source)
        if task.cell.spec not in runner.sources:
            raise UsageError(
                f"the spec of a cell is {task.cell.spec!r}, but its source {task.source!r} is a "
                "different spec: take both from the same cell"
            )
        return runner

    def _begin_record(self, runner: CellRunner) -> None:
        if self._writer is None:
            return
        request = make_request_record(runner.request)
        if self._written is None:
            # Leave out the plan, because the cells that the caller will run are unknown.
            self._append(runner.new_head().model_copy(update={"plan": None}))
            self._written = request
        elif self._written != request:
            raise UsageError(
                f"{self._writer.path} has records of cells with other options (sizes, checks, "
                "seed, ...): use another Workers(records=...) for these cells"
            )

    def _append(self, *lines: RecordLine, durable: bool = True) -> None:
        if self._writer is not None:
            self._writer.append(*lines, durable=durable)


def tasks(runner: CellRunner) -> list[Task]:
    """Make a :class:`Task` for each cell of a request, e.g. to send the cells to other machines.
    Cells of a user's own model, which run on this machine, are left out.

    Raises:
        UsageError: the request has arrays, which a task cannot contain.
    """
    request = runner.request
    if request.given is not None:
        raise UsageError("a cell cannot contain arrays: omit weights, inputs, state and targets")
    defaults = Request()
    shared = {
        name: getattr(request, name)
        for name in OPTIONS
        if getattr(request, name) != getattr(defaults, name)
    }
    if "folders" in shared:
        shared["folders"] = [os.path.abspath(path) for path in shared["folders"]]
    options_by_backend = {
        name: _dump_json(_select_options(shared, name)) for name in runner.backends
    }
    # Names of specs, or absolute paths, which are valid in every folder.
    sources = {
        spec: source if runner.specs.library.has("model", source) else os.path.abspath(source)
        for spec, source in runner.sources.items()
    }
    return [
        Task(cell, sources[cell.spec], options_by_backend[cell.backend])
        for cell in runner.cells()
        if not runner.is_own_model(cell.backend)
    ]


def _select_options(options: Mapping[str, Any], backend: str) -> dict[str, object]:
    """Return, by name, the options that a cell of ``backend`` needs. Interpreters and environment
    variables of other backends are left out."""
    selected = dict(options)
    for name in ("pythons", "environment"):
        own = {key: value for key, value in selected.pop(name, {}).items() if key == backend}
        selected |= {name: own} if own else {}
    return selected


def _dump_json(options: Mapping[str, object]) -> str:
    return json.dumps(options, sort_keys=True, separators=(",", ":"))
