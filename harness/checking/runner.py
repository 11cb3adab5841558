"""Runs single cells of a request, each on the warm worker of its backend.

All that runs cells goes through here: a whole check, ``harness.run_cell``, and a node of a cluster.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from typing import Self

from harness.checking.events import CheckEvents
from harness.checking.history import request_record
from harness.checking.known_differences import Differences, known_differences
from harness.checking.own_model.run import UsersModel
from harness.checking.pairs import group_name, group_of
from harness.checking.provenance import Signatures, greeting, labelled, origins
from harness.checking.request import Request, case_sizes, check_request, checks_of, make_case
from harness.checking.run_cell import CellRun, SpecOnBackend, Subject
from harness.environments.columns import Columns, choose
from harness.errors import HarnessError, UsageError
from harness.language.axes import check_asked
from harness.language.library import Library, content, lesson6
from harness.language.model import Shelf, Spec
from harness.language.schema import Layer, LayerUse
from harness.oracle.case import Case, check_meaning
from harness.oracle.complex_step import complex_step_gap
from harness.oracle.patience import OracleFault, Patience, with_patience
from harness.results.cell import Cell, CellResult, cell_name, own_fault
from harness.results.environment import machine
from harness.results.findings import Finding
from harness.results.lines import CheckedModel, Head
from harness.runs.plans import RunPlan
from harness.worker.launch import Launch, usual_start_timeout
from harness.worker.worker import Worker

# The cases of a run, shared by all backends, and given up as soon as nobody needs them.
#
# Backends go through the specs one after another, several beside each other, so a case is asked for
# again and again while they pass. It goes with the last cell of its spec. Before that, in a run of
# more specs than are kept, it goes when others were asked for since, and is made a second time for
# the backends that come later: dearer than keeping it, but the memory of a run stays flat.

KEPT = 32
"""Cases of so many specs stay; more than a run of Lesson 6 has."""


class SharedCases:
    """Cases by spec, each made once; and ``proofs``: how far each oracle gradient is from the
    complex step."""

    def __init__(self, request: Request, kept: int = KEPT) -> None:
        self.request, self.kept = request, kept
        self.proofs: dict[str, float] = {}
        self._cases: OrderedDict[str, dict[bool, Case]] = OrderedDict()
        self._faults: dict[str, OracleFault] = {}
        self._left: Counter[str] = Counter()
        self._turns: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def plan(self, specs: Iterable[str]) -> None:
        """Each name is that of a cell to come; see :meth:`done`."""
        self._left.update(specs)

    def done(self, spec: str) -> None:
        """A planned cell of the spec has ended."""
        with self._lock:
            self._left[spec] -= 1
            if self._left[spec] <= 0:
                del self._left[spec]
                self._cases.pop(spec, None)
                self._turns.pop(spec, None)

    def get(self, spec: Spec, *, own: bool) -> Case:
        """A spec's case, small or at its own sizes.

        Raises:
            OracleFault: the oracle could not make it, now or the first time.
        """
        with self._turn(spec.name):
            if spec.name in self._faults:
                raise self._faults[spec.name]
            found = self._used(spec.name).get(own)
            if found is None:
                try:
                    found = self._made(spec, own)
                except OracleFault as fault:
                    self._faults[spec.name] = fault
                    raise
                self._used(spec.name)[own] = found
            return found

    def _made(self, spec: Spec, own: bool) -> Case:
        case = make_case(spec, self.request, own=own)
        if not own and spec.name not in self.proofs:
            if case.given is None:
                check_meaning(case)
            # Numbers that are given may lie on a kink or overflow; the equations are the same.
            drawn = replace(self.request, given=None)
            proved = case if case.given is None else make_case(spec, drawn, own=False)
            self.proofs[spec.name] = complex_step_gap(proved)
        return case

    def _used(self, spec: str) -> dict[bool, Case]:
        """The cases of a spec, which now is the last that was asked for."""
        with self._lock:
            entry = self._cases.setdefault(spec, {})
            self._cases.move_to_end(spec)
            while len(self._cases) > self.kept:
                self._cases.popitem(last=False)
            return entry

    def _turn(self, spec: str) -> threading.Lock:
        """Held by one thread at a time for each spec: the others wait for what it makes."""
        with self._lock:
            return self._turns.setdefault(spec, threading.Lock())


# Models whose equations the head of a record file has.
MOST_MODELS = 40


class CellRunner:
    """The cells of a request, one by one. Use as a context manager, so that no worker outlives it.

    ``sources`` are by name of a spec what it was asked for as: its name, or its file's path. With
    ``alone`` the request is of some of the cells of another one, whose sizes it need not all have.
    """

    def __init__(
        self, request: Request, events: CheckEvents | None = None, *, alone: bool = False
    ) -> None:
        self.request = request
        self.events = events or CheckEvents()
        if request.against is None:
            columns = choose(request.backends, request.pythons)
        else:  # the column that a model of a user's own is
            column = request.against.column
            columns = Columns((column,), {column: request.pythons.get(column, sys.executable)})
        self.backends, self.lacking = columns.names, columns.lacking
        check_request(request, (*self.backends, *self.lacking))
        request = replace(request, checks=checks_of(request), pythons=columns.pythons)
        self.request = request
        self.specs = Shelf(Library(tuple(request.folders)))
        self.sources: dict[str, str] = {}
        own: dict[str, tuple[str, ...]] = {}
        for name in dict.fromkeys(request.specs or lesson6()):
            spec = self.specs.add(name)
            self.sources.setdefault(spec.name, name)
            own[spec.name] = tuple(spec.model.sizes)
        self.applied = [] if alone else check_asked(request.sizes, own)
        if request.given is not None and self.specs.names != (request.given.spec,):
            raise UsageError(f"numbers of {request.given.spec} are given: check it, and no other")
        # What is known of a framework's own layers excuses no model of a user's.
        own_model = request.against is not None
        self.differences = Differences() if own_model else known_differences(request.folders)
        self.workers = {name: Worker(self._launch(name)) for name in self.backends}
        self.cases = SharedCases(request)
        self._lock = threading.Lock()
        self.stopping = threading.Event()
        """Set when nothing further is to begin, and what is under way is no verdict."""
        self.closing = ExitStack()
        """What else ends with the workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, and what else is of this run."""
        self.stopping.set()
        for worker in self.workers.values():
            worker.close()
        self.closing.close()

    def starting(self, name: str, seconds: float) -> None:
        """Tell that a process is started, which may take so many seconds."""
        with self._lock:
            self.events.starting(name, seconds)

    def cells(self) -> list[Cell]:
        """The plan: every spec on every backend, dtype by dtype and path by path; of a shard, its
        part of them.

        Raises:
            UsageError: there are fewer cells than shards.
        """
        whole, shard = self.whole_plan(), self.request.shard
        if shard is None:
            return whole
        # What is compared with each other stays together, if that leaves no shard without any.
        together = len({group_of(cell) for cell in whole}) >= shard.count
        return shard.part(whole, group_name if together else cell_name, "cell")

    def whole_plan(self) -> list[Cell]:
        """The cells of all shards."""
        request = self.request
        return [
            Cell(spec, backend, request.device, dtype, path)
            for backend in self.backends
            for spec in self.specs.names
            for dtype in request.dtypes
            for path in request.paths
        ]

    def with_cell(self, cell: Cell, source: str) -> Self:
        """Take in a further cell, whose spec is found by ``source``.

        Raises:
            UsageError: there is no such backend, spec or size.
            HarnessError: the spec is wrong.
        """
        if cell.backend not in self.workers:
            (name,) = choose((cell.backend,), self.request.pythons).names
            self.workers[name] = Worker(self._launch(name))
            self.backends = (*self.backends, name)
        if cell.spec not in self.sources:
            spec = self.specs.add(source)
            self.sources[spec.name] = source
        return self

    def new_head(self, arguments: Sequence[str] = (), planned: int | None = None) -> Head:
        """The first line of the record of a run of this request, begun now."""
        names = map(cell_name, self.whole_plan())
        axes = [dict.fromkeys(part) for part in zip(*names, strict=True)]
        return Head(
            harness=version("backend-comparison-harness"),
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            arguments=tuple(arguments),
            machine=machine(),
            versions=origins(self.backends),
            environment={name: dict(found) for name, found in self.request.environment.items()},
            request=request_record(self.request),
            folders=tuple(map(str, self.request.folders)),
            sources={
                name: source
                for name, source in self.sources.items()
                if not self.specs.library.has("model", source)
            },
            files=self._files(),
            limits=self._limits(),
            plan=RunPlan.of(axes, self.request.shard),
            models=dict(map(self._told, self.specs.names[:MOST_MODELS])),
            notes=tuple(self.specs.notes),
            columns=labelled(self.workers),
            planned=planned,
        )

    def _told(self, name: str) -> tuple[str, CheckedModel]:
        """A model by its name, as a reader of the record sees it."""
        model, known = self.specs[name].model, {}
        if self.request.against is None:  # a user's own model decides which sizes it can have
            sizes, batch, time_ = case_sizes(self.specs[name], self.request, own=False)
            known = {**model.sizes, **sizes, "batch": batch, "time": time_}
        layers = {name: use.layer for name, use in model.layers.items()}
        attributes = {name: self._changed(use) for name, use in model.layers.items()}
        return name, CheckedModel(
            sizes=known,
            layers=layers,
            attributes={name: found for name, found in attributes.items() if found},
            equations=model.equations,
            loss=model.loss or "",
        )

    def _changed(self, use: LayerUse) -> dict[str, str]:
        """Return as text the attributes of a layer that differ from the defaults, without sizes."""
        defaults = content(self.specs.library.find("layer", use.layer), Layer).attributes
        return {
            name: json.dumps(value) if isinstance(value, bool) else str(value)
            for name, value in (use.model_extra or {}).items()
            if defaults[name] not in ("size", value)
        }

    def _files(self) -> dict[str, str]:
        """The files of a user's own that the run was given, by option."""
        given, own = self.request.given, self.request.against
        found = {option: str(path) for option, path in (given.files if given else {}).items()}
        return found if own is None else {"--against": own.target, **found}

    def _limits(self) -> dict[str, str]:
        """The limits of a cell that are not the usual ones, by option, as a command takes them."""
        given = self.request
        found = {} if given.timeout == Request.timeout else {"--timeout": f"{given.timeout:g}"}
        memory = given.memory_limit
        return found if memory is None else {**found, "--memory": str(-(-memory // 2**20))}

    @cached_property
    def _signatures(self) -> Signatures:
        return Signatures(self.request, self.differences)

    def signature(self, cell: Cell) -> Mapping[str, str]:
        """The signature of a cell: what decides its numbers."""
        return self._signatures.of(cell, self.specs[cell.spec])

    def signed(self, result: CellResult) -> CellResult:
        """A result of this run with its signature."""
        if result.signature is None:
            result.signature = self.signature(result.cell)
        return result

    def run_cell(self, cell: Cell, checks: tuple[str, ...] = ()) -> CellResult:
        """Run one cell of the plan; the worker of its backend stays warm.

        ``checks`` are patterns, and the request's if left out.
        """
        spec, worker, request = self.specs[cell.spec], self.workers[cell.backend], self.request
        patience = Patience(request.timeout, self.stopping)

        def tell(finding: Finding) -> None:
            with self._lock:
                self.events.found(cell, finding)

        with with_patience(patience):
            try:
                small, own = self.case(spec, own=False), self.case(spec, own=True)
            except OracleFault as fault:
                finding = Finding("oracle", faults=[str(fault)], verdict=fault.verdict)
            except HarnessError:
                raise
            except Exception as error:
                finding = own_fault(error)
            else:
                if worker.pid is None and not worker.given_up:
                    self.starting(cell.backend, worker.launch.start_timeout)
                subject: Subject = SpecOnBackend(request.repeat, request.dtypes)
                if request.against is not None:
                    subject = UsersModel(request.against)
                run = CellRun(cell, small, own, worker, self.differences, subject, request.timeout)
                run = replace(run, checks=checks or request.checks, thorough=request.thorough)
                result = run.run(tell)
                result.greeting = greeting(worker)
                return result
        tell(finding)
        result = CellResult(cell, [finding], seconds=patience.spent, could_not_run=True)
        result.greeting = greeting(worker)
        return result

    def case(self, spec: Spec, *, own: bool) -> Case:
        """A spec's case, small or at its own sizes; the same one where numbers are given."""
        return self.cases.get(spec, own=own and self.request.given is None)

    @property
    def proofs(self) -> Mapping[str, float]:
        """How far the oracle's gradient is from the complex step, by spec."""
        return self.cases.proofs

    def _launch(self, backend: str) -> Launch:
        request = self.request
        # What answers the calls.
        service = {"handler": request.handler, "service": request.service}
        return Launch(
            backend,
            python=request.pythons.get(backend, sys.executable),
            environment=request.environment.get(backend, {}),
            memory_limit=request.memory_limit,
            **{**service, **(request.against.service if request.against else {})},
            deterministic=request.deterministic,
            start_timeout=request.start_timeout or usual_start_timeout(),
        )
