"""Reuse of results from a folder of record files: cells that agreed do not run again until
something changes.

A result is reused only if nothing has changed that could change its numbers: the request, and the
conditions that :class:`Signatures` and :class:`Greetings` list (e.g. versions). If a cell ran
several times under the same conditions, its latest result decides, whatever the order of files and
lines.

- A cell runs again if its latest result did not pass. If two results began in the same second, a
  result that did not pass counts as the latest.
- If a result began later than now, its clock was wrong. If it passed, it is ignored.
- A cell's lines have a checksum. Cells with incomplete or edited lines are ignored.
- Unreadable files are reported and skipped. Their cells run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.checking.known_differences import Differences
from harness.checking.options import DECIDING, CheckOptions
from harness.checking.own_model.against import model_label
from harness.checking.request import Request, case_sizes, describe_arrays, where_huge
from harness.command.declared import options_of
from harness.errors import UsageError, several
from harness.files.user_file import displayed
from harness.language.model import Spec, fingerprint
from harness.oracle import tolerance
from harness.results.cell import Cell, CellResult
from harness.results.environment import describe_machine
from harness.results.file import RecordError, encode_line, read_records
from harness.results.findings import AGREEING
from harness.results.lines import Begin, CellLine, End, Head, RequestRecord, Result, results_of
from harness.results.records import Records
from harness.runs.changes import describe_change
from harness.runtime.code_digest import digest
from harness.runtime.hookspecs import FORMATS_GROUP
from harness.runtime.labels import backend_of
from harness.runtime.plugins import available, code
from harness.worker.cards import cards
from harness.worker.serve import relevant_variables
from harness.worker.worker import Worker

# The conditions on which a cell's numbers depend. A recorded result is reused only if all
# conditions are unchanged. A *signature* has the conditions that are known before a cell runs. A
# *greeting* has the versions that a worker reports when it starts. Signatures and greetings map
# names to texts, which are written to records and to messages about changes.

# Entries of signatures and greetings whose values are checksums -> the message if they have
# changed.
CHECKSUMS: Mapping[str, str] = {
    "spec": "the spec has changed",
    "sizes": "the sizes have changed",
    "differences": "the known differences have changed",
    "harness code": "the code of the harness has changed",
    "code": "the code of the backend has changed",
    "machine": "the machine is different",
    "model": "the file or the options of the model have changed",
}
# Entries of a signature that exist only if the backend runs on the interpreter of the harness.
OF_OWN_INTERPRETER = ("backend",)
# Entries of a signature that are limits. They matter only if a verdict is one of :data:`LIMITED`.
LIMITS = ("--timeout", "--memory")
LIMITED = frozenset({"timeout", "out-of-memory", "not-run"})
# Environment variables that change which packages an interpreter finds. If the user sets one of
# them for a worker, the harness must start the worker to get its versions.
SEARCHING = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PATH")
PROSE = {"summary", "source"}


class Signatures:
    """The signatures of the cells of a command. A signature maps names to texts. It lists
    everything that could change a cell's numbers and that is known before the cell runs, e.g. the
    checksum of the spec."""

    def __init__(self, request: Request, differences: Differences) -> None:
        self.request = request
        this_machine = describe_machine()
        self._common = {
            "harness": version("backend-comparison-harness"),
            "harness code": digest("harness"),
            "K": str(tolerance.K),
            "numpy of the oracle": version("numpy"),
            "Python of the oracle": platform.python_version(),
            "differences": _compute_checksum(
                {n: d.model_dump() for n, d in differences.entries.items()}
            ),
            "--timeout": str(request.timeout),
            "--memory": str(request.memory_limit),
            **{name: str(getattr(this_machine, name)) for name in ("host", "cpu", "architecture")},
            "machine": this_machine.id,
            "service": request.service,
            **(
                {"model": _compute_checksum(request.against.record().plain())}
                if request.against
                else {}
            ),
            "usable cores": str(this_machine.usable_cores),
            # In a run with several dtypes, some checks run in only one dtype, so the list of dtypes
            # matters.
            "dtypes": ", ".join(request.dtypes),
            **{f"variable {name}": text for name, text in relevant_variables(os.environ).items()},
        }
        self._specs: dict[str, dict[str, str]] = {}
        self._backends: dict[str, dict[str, str]] = {}

    def of(self, cell: Cell, spec: Spec) -> dict[str, str]:
        """Return the signature of a cell: a dictionary such as ``{"numpy of the oracle": "2.1"}``.
        The fields of the cell itself (e.g. its dtype) are not in the signature."""
        if spec.name not in self._specs:
            content = spec.model.model_dump(exclude=PROSE)
            sizes: list[object] = [
                case_sizes(spec, self.request, own=case) for case in (False, True)
            ]
            if where_huge(spec, self.request) == "asked":
                sizes.append(dict(self.request.sizes))
            checksums = {
                "spec": _compute_checksum([fingerprint(spec), content]),
                "sizes": _compute_checksum(sizes),
            }
            self._specs[spec.name] = checksums
        if cell.backend not in self._backends:
            self._backends[cell.backend] = _sign_backend(cell.backend, self.request)
        gpus = {} if cell.device == "cpu" else self._gpus
        return {**self._common, **self._specs[spec.name], **self._backends[cell.backend], **gpus}

    @cached_property
    def _gpus(self) -> dict[str, str]:
        return {"GPUs": "; ".join(" ".join(card.values()) for card in cards())}


class Greetings:
    """The greetings of the workers. A greeting is what a worker process reports when it starts: a
    dictionary from package name to version.

    To read a greeting, the harness must start the worker. It does so only if the worker runs on a
    different interpreter, or if the recorded versions differ from the installed versions.
    """

    def __init__(self, request: Request, workers: Mapping[str, Worker]) -> None:
        self.request, self.workers = request, workers
        self._greetings: dict[str, Mapping[str, str]] = {}
        self._started: set[str] = set()

    def now(self, backend: str, recorded: Mapping[str, str]) -> Mapping[str, str]:
        """Return the versions that a backend's worker reports now, as a dictionary from package to
        version; empty if the worker cannot be started. ``recorded`` has the versions of an earlier
        run."""
        if self._greetings.get(backend) != recorded and backend not in self._started:
            if self._is_own(backend) and _read_versions(backend, recorded) == recorded:
                self._greetings[backend] = recorded
            else:
                self._started.add(backend)
                worker = self.workers[backend]
                self._greetings[backend] = (greeting(worker) or {}) if worker.start().ok else {}
        return self._greetings[backend]

    def _is_own(self, backend: str) -> bool:
        variables = self.request.environment.get(backend, {})
        searched = any(name in variables for name in SEARCHING)
        return self.request.pythons.get(backend, sys.executable) == sys.executable and not searched


def greeting(worker: Worker) -> dict[str, str] | None:
    """Return the versions and checksums that a worker reported at its start, by name; None if the
    worker never started."""
    hello = worker.hello
    if hello is None:
        return None
    versions = {name: str(text) for name, text in hello.get("versions", {}).items()}
    entries = {"Python": "python", "code": "code", "harness code": "harness"}
    return {**versions, **{name: str(hello.get(entry, "")) for name, entry in entries.items()}}


def origins(columns: Iterable[str]) -> dict[str, str]:
    """Return a dictionary from backend to the package and version of its plugin, e.g. ``my-backend
    1.0``. ``columns`` has the names of the backends."""
    installed = available()
    by_column = {name: installed.get(backend_of(name)) for name in columns}
    return {name: f"{o.distribution} {o.version}" for name, o in by_column.items() if o is not None}


def describe_labelled(workers: Mapping[str, Worker]) -> dict[str, dict[str, str]]:
    """Return a dictionary from the name of each worker that has a label, e.g. ``torch@2.6``, to its
    backend and interpreter: ``{"backend": "torch", "interpreter": ...}``."""
    return {
        name: {"backend": backend_of(name), "interpreter": worker.launch.python}
        for name, worker in workers.items()
        if backend_of(name) != name
    }


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return a text for each entry that differs between two signatures (or two greetings),
    ``before`` and ``now``."""
    before, now = keep_common(before, now)
    texts = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if old != new:
            texts.append(CHECKSUMS.get(name, f"{name} {describe_change(old, new)}"))
    return texts


def keep_common(
    one: Mapping[str, str], other: Mapping[str, str]
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return two signatures so that they can be compared.

    Some entries (:data:`OF_OWN_INTERPRETER`) are known only for the interpreter of the harness. If
    the signatures have different interpreters, these entries are left out unless both signatures
    have them.
    """
    if one.get("interpreter") == other.get("interpreter"):
        return one, other
    hidden = {name for name in OF_OWN_INTERPRETER if (name in one) != (name in other)}
    first, second = ({n: t for n, t in s.items() if n not in hidden} for s in (one, other))
    return first, second


def _sign_backend(name: str, request: Request) -> dict[str, str]:
    origin = {**available(FORMATS_GROUP), **available()}[backend_of(name)]
    python = request.pythons.get(name, sys.executable)
    signature = {"interpreter": python}
    if python == sys.executable:
        signature["backend"] = f"{origin.distribution} {origin.version}"
    variables = request.environment.get(name, {})
    return {**signature, **{f"--env {variable}": text for variable, text in variables.items()}}


def _read_versions(backend: str, recorded: Mapping[str, str]) -> dict[str, str]:
    """Return the ``recorded`` greeting (package -> version) with the versions that are installed
    now. Packages that are not installed are left out."""
    versions = {
        "Python": platform.python_version(),
        "code": code(backend_of(backend)),
        "harness code": digest("harness"),
    }
    for name in recorded:
        try:
            installed, (public, plus, _) = version(name), recorded[name].partition("+")
            # The recorded version may only add a local part (``2.1.0+cpu``); then use it unchanged.
            versions.setdefault(name, recorded[name] if plus and installed == public else installed)
        except (PackageNotFoundError, ValueError):  # an empty name raises ValueError
            continue
    return versions


def _compute_checksum(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


SUFFIX = ".jsonl"
# Results with these verdicts are reused. Cells that differ or could not run always run again.
KEPT = AGREEING


def read_history(folder: Path, request: Request) -> tuple[dict[Cell, list[CellResult]], list[str]]:
    """Read a folder of record files. Return the earlier results of each cell, newest first, and a
    text for each ignored file or group of cells. Only results of the same request are returned.

    Raises:
        UsageError: the path is not a folder.
    """
    cells: dict[Cell, list[CellResult]] = {}
    ignored: list[str] = []
    if not os.path.lexists(folder):
        return cells, ignored
    if not folder.is_dir():
        raise UsageError(
            f"--history needs a folder of record files, and {displayed(folder)} is no folder"
        )
    request_of_run = make_request_record(request)
    all_results: list[CellResult] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            blocks = read_records(path).every_block
        except RecordError as error:
            ignored.append(f"ignored in the history: {error}")
            continue
        # Cells whose checksum matches their lines.
        intact = [b for b in blocks if seal(b.begin, b.results, b.end).checksum == b.end.checksum]
        results = [
            block.result()
            for block in intact
            if block.head and block.head.request == request_of_run
        ]
        now = _now()
        usable = [result for result in results if result.since <= now or result.verdict not in KEPT]
        for count, reason in (
            (len(blocks) - len(intact), "with a wrong checksum"),
            (len(results) - len(usable), f"which began after the present time, {now}"),
        ):
            if count:
                count_text = f"{several(count, 'cell')} of {displayed(path)}"
                ignored.append(f"ignored in the history: {count_text}, {reason}")
        all_results += usable
    for result in sorted(all_results, key=lambda r: (r.since, r.verdict not in KEPT), reverse=True):
        cells.setdefault(result.cell, []).append(result)
    return cells, ignored


def seal(begin: Begin, results: Sequence[Result], end: End) -> End:
    """Return the last line of a cell (``end``) with a checksum of all lines of the cell, from
    ``begin`` on."""
    content = hashlib.sha256()
    # The checksum does not cover the blame, which a later cell may change, and the fields that
    # ``harness merge`` adds.
    for line in (begin, *results, end):
        fields = {n: v for n, v in line.plain().items() if n not in ("copy", "started", "checksum")}
        fields |= {"blame": None} if line is end else {}
        content.update(encode_line(dict(sorted(fields.items()))))
    return end.model_copy(update={"checksum": content.hexdigest()})


def cell_lines(begin: Begin, result: CellResult) -> list[CellLine]:
    """Return the lines of a cell for a record file: ``begin``, the results and the end. The last
    line has the checksum of all of them."""
    results = [*results_of(result)]
    return [begin, *results, seal(begin, results, End.of(result))]


def new_file(folder: Path) -> Path:
    """Return the path of a new record file in a history folder. Create the folder if it does not
    exist.

    Raises:
        UsageError: the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot create the folder {displayed(folder)}: {error.strerror}"
        ) from None
    return folder / f"{_now().replace(':', '-')}-{os.getpid()}{SUFFIX}"


def count_by_day(results: Sequence[CellResult]) -> Iterator[str]:
    """Yield a text for each day: how many results are from that day, e.g. ``8 from 2026-11-26``."""
    counts = Counter(result.since[:10] for result in results)
    yield from (f"{count} from {day}" for day, count in sorted(counts.items()))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# A record file has the finished cells of an interrupted run, which can be resumed.


def make_request_record(request: Request) -> RequestRecord:
    """Return the settings of a request on which results depend. A run may reuse results of an
    earlier run only if these settings are equal."""
    settings = {one.name: getattr(request, one.name) for one in DECIDING}
    return RequestRecord(
        **{**settings, "sizes": dict(sorted(request.sizes.items()))},
        against=request.against.record() if request.against else None,
        given=describe_arrays(request.given) if request.given else None,
    )


def records_of(path: Path, request: Request) -> Records:
    """Read the record file ``path``, which an earlier run of the same request has written. Return
    empty records if there is no such file.

    Raises:
        RecordError: the file cannot be read, or a line lacks required fields.
        UsageError: the file has a run with different sizes, checks or seed.
    """
    if not path.exists():
        return Records(())
    records = read_records(path)
    expected = make_request_record(request)
    for head in records.of_kind(Head):
        if head.request != expected:
            new, old = expected.plain(), head.request.plain() if head.request else {}
            differing = [
                f"{name} {json.dumps(old.get(name))}, now {json.dumps(new.get(name))}"
                for name in dict.fromkeys([*old, *new])
                if old.get(name) != new.get(name)
            ]
            raise UsageError(
                f"{path} has a run with other options ({'; '.join(differing)}): use the same "
                "options, or another record file"
            )
    return records


def describe_missing_records(path: Path) -> str:
    """Return the message that a record file does not exist yet, so that all cells run."""
    return f"there are no records in {displayed(path.absolute())} yet: all cells are run"


def find_reason_to_run(result: CellResult, now: Mapping[str, str], greetings: Greetings) -> str:
    """Return a text that says why a cell must run again; empty if the recorded ``result`` can be
    reused.

    ``now`` is the signature that the cell has now: everything that could change its numbers.
    ``greetings`` has the versions that the workers report.
    """
    if result.signature is None or result.greeting is None:
        return "the record file does not say under which conditions it ran"
    conditions = dict(now)
    if not LIMITED & {finding.verdict for finding in result.findings}:
        # Changed limits do not matter if no check exceeded a limit of time or memory.
        conditions |= {name: text for name, text in result.signature.items() if name in LIMITS}
    differing = changes(result.signature, conditions)
    if not differing:
        differing = changes(result.greeting, greetings.now(result.cell.backend, result.greeting))
    return ", ".join(differing)


def rerun_command(cell: Cell, head: Head | None, checks: Sequence[str] = ()) -> list[str]:
    """Return the words of the ``harness check`` command that runs a cell again. ``head`` is the
    first line of a record file; the command gets the options of that run. If ``checks`` is empty,
    the command also names the checks of that run."""
    head = head or Head.model_construct(environment={})
    request = head.request or RequestRecord()
    model = request.against
    spec, environment = head.sources.get(cell.spec, cell.spec), head.environment
    # A user's own model is named e.g. ``torch@model.Gru``; its backend is the part before @.
    # If its spec is traced, other backends have other labels, such as ``torch@2.6``.
    own = model and (not model.inputs or cell.backend.endswith(f"@{model_label(model.model)}"))
    backend = backend_of(cell.backend) if own else cell.backend
    words = ["harness", "check", spec, "--backend", backend, "--dtype", cell.dtype]
    words += _format_options(paths=[cell.path], device=cell.device)
    words += [word for option in (*head.files.items(), *head.limits.items()) for word in option]
    mapped = {"maps": model.map, "takes": model.takes, "returns": model.returns} if model else {}
    if model and model.inputs:  # the trace has the rules
        mapped = {"traced_inputs": model.inputs}
    variables = [f"{backend}:{n}={v}" for n, v in environment.get(cell.backend, {}).items()]
    words += _format_options(**mapped, folders=head.folders, environment=variables)
    shown_request = request.model_copy(update={"checks": checks}) if checks else request
    return words + [
        word for one in DECIDING for word in one.words(getattr(shown_request, one.name, None))
    ]


def _format_options(**values: object) -> list[str]:
    """Return the command-line words that set options of ``harness check``, e.g. ``--seed 3``. The
    keywords are field names of the options."""
    options = {one.name: one for one in options_of(CheckOptions)}
    return [word for name, value in values.items() for word in options[name].words(value)]
