"""Running the cells of a request one by one, each on the worker process of its backend. ``harness
check``, ``harness.run_cell`` and the nodes of a cluster use this module."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import version
from typing import Any, Self

from harness.caching import noise_store
from harness.caching.compiled_code import CompiledCode
from harness.checking.history import (
    Greetings,
    Signatures,
    describe_labelled,
    find_reason_to_run,
    greeting,
    make_request_record,
    origins,
)
from harness.checking.known_differences import Differences, known_differences
from harness.checking.own_model.against import Against
from harness.checking.own_model.run import UsersModel
from harness.checking.pairs import group_name, group_of
from harness.checking.request import (
    Request,
    case_sizes,
    check_request,
    describe_huge_models,
    resolve_checks,
    where_huge,
)
from harness.checking.run_cell import CellRun, SpecOnBackend, Subject
from harness.checking.shared_cases import SharedCases
from harness.environments.columns import Columns, choose
from harness.errors import EXIT_COULD_NOT_RUN, EXIT_FAILED, EXIT_PASSED, HarnessError, UsageError
from harness.language.axes import describe_missing_sizes
from harness.language.library import Library, content, lesson6
from harness.language.model import ModelCollection, Spec, fingerprint
from harness.language.schema import Layer, LayerUse
from harness.oracle.case import Case, programs_of
from harness.oracle.time_limit import OracleFault, TimeLimit, with_time_limit
from harness.results.cell import Cell, CellResult, cell_name, harness_fault
from harness.results.environment import describe_machine
from harness.results.findings import AGREEING, PASSING, VERDICTS, Finding, Verdict
from harness.results.lines import CheckedModel, Head, Pair
from harness.runs.plans import RunPlan
from harness.worker.launch import Launch, usual_start_timeout
from harness.worker.worker import Worker

# The events of a run of checks, and its report.


class CheckEvents:
    """A receiver of events while cells run, e.g. a progress display. Subclasses override the
    methods that they need. Different threads call the methods, but never two methods at the same
    time."""

    def planned(self, cells: Sequence[Cell]) -> None:
        """Receive the list of all cells of the run, before the first cell starts."""

    def rerunning(self, reasons: Sequence[str]) -> None:
        """Receive texts that say why cells with recorded results run again, before the first cell
        starts."""

    def began(self, cell: Cell) -> None:
        """Receive a cell that now starts to run."""

    def starting(self, backend: str, seconds: float) -> None:
        """Receive the start of a backend's process. ``seconds`` is the time limit of the start."""

    def stage_began(self, cell: Cell, stage: str) -> None:
        """Receive what a running cell now does, e.g. ``training, check 6 of 41``."""

    def finding_added(self, cell: Cell, finding: Finding) -> None:
        """Receive a finding (the result of one check) of a running cell."""

    def ended(self, result: CellResult) -> None:
        """Receive the result of a finished cell."""


@dataclass
class Report:
    """The results of all cells, in the order in which the cells were planned.

    - ``outliers`` are texts about backends that differ from all others, and ``pairs`` the
      comparisons of backends.
    - ``left_out`` is the number of cells that did not start because an earlier cell failed.
    - ``lacking`` maps a backend whose framework is not installed to the command that installs it.
    - ``seconds`` is the duration of the run.
    """

    results: list[CellResult]
    outliers: list[str] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    left_out: int = 0
    lacking: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """The exit code of the run.

        - 0: all cells agree or have only known differences;
        - 1: a cell differs;
        - 3: a backend could not run, or no cell compared anything.
        """
        verdicts = {r.verdict for r in self.results if r.findings}
        if any(r.could_not_run for r in self.results) or verdicts & {
            "crashed",
            "timeout",
            "out-of-memory",
        }:
            return EXIT_COULD_NOT_RUN
        if verdicts <= PASSING:
            return EXIT_PASSED if verdicts & AGREEING else EXIT_COULD_NOT_RUN
        return EXIT_FAILED


# The time limit of a cell of a huge model (:func:`.request.where_huge`) in seconds, unless the user
# sets a limit.
HUGE_SECONDS = 900.0
# The first line of a record file describes at most this many models.
MOST_MODELS = 40


class CellRunner:
    """The cells of a request, which callers run one by one. When the ``with`` block of this context
    manager ends, the worker processes end too.

    ``sources`` maps each spec name to the user's argument: the same name, or the path of a file.
    ``alone`` means that the request has only some cells of a larger request. It may then set sizes
    that its specs do not have, because other specs of the larger request have them.
    """

    def __init__(
        self,
        request: Request,
        events: CheckEvents | None = None,
        *,
        alone: bool = False,
        cases: SharedCases | None = None,
    ) -> None:
        self.request = request
        self.events = events or CheckEvents()
        columns = _choose_columns(request)
        self.backends, self.lacking = columns.names, columns.lacking
        check_request(request, (*self.backends, *self.lacking))
        request = replace(request, checks=resolve_checks(request), pythons=columns.pythons)
        self.request = request
        self.specs = ModelCollection(request.library)
        self.sources: dict[str, str] = {}
        own: dict[str, tuple[str, ...]] = {}
        for name in dict.fromkeys(request.specs or lesson6()):
            spec = self.specs.add(name)
            self.sources.setdefault(spec.name, name)
            own[spec.name] = tuple(spec.model.sizes)
        self.applied = [] if alone else describe_missing_sizes(request.sizes, own)
        self.applied += describe_huge_models(map(self.specs.__getitem__, self.specs.names), request)
        for path, reason in (request.against.lacking if request.against else {}).items():
            self.applied.append(f"{request.against} does not run on the path {path}: {reason}")
        if request.given is not None and self.specs.names != (request.given.spec,):
            raise UsageError(f"the given arrays are for {request.given.spec}: check only this spec")
        only_own_model = all(map(self.is_own_model, self.backends))
        self.differences = Differences() if only_own_model else known_differences(request.folders)
        self.compiled_code: dict[str, CompiledCode] = {}
        self.closing = ExitStack()
        """Resources to close when the workers are closed."""
        self.workers = {name: Worker(self._launch(name)) for name in self.backends}
        self.cases = cases or SharedCases(request)
        self._lock = threading.Lock()
        self._specs_with_checked_names: set[str] = set()
        self.stopping = threading.Event()
        """The event that stops the run. No further cell starts, and results of running cells are
        ignored."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, and close the other resources of the run."""
        self.stopping.set()
        for worker in self.workers.values():
            worker.close()
        self.closing.close()

    def starting(self, name: str, seconds: float) -> None:
        """Report the start of a process to the receiver of events. ``seconds`` is the time limit of
        the start."""
        with self._lock:
            self.events.starting(name, seconds)

    def cells(self) -> list[Cell]:
        """Return the planned cells: all combinations of spec, backend, dtype and path. If the
        request has a shard (e.g. 2 of 5), return only the cells of this shard.

        Raises:
            UsageError: there are fewer cells than shards.
        """
        all_cells, shard = self.whole_plan(), self.request.shard
        if shard is None:
            return all_cells
        # Put cells that are compared with each other into the same shard, unless a shard would then
        # be empty.
        keep_groups = len({group_of(cell) for cell in all_cells}) >= shard.count
        return shard.select(all_cells, group_name if keep_groups else cell_name, "cell")

    def whole_plan(self) -> list[Cell]:
        """Return the planned cells of all shards."""
        request = self.request
        return [
            Cell(spec, backend, request.device, dtype, path)
            for backend in self.backends
            for spec in self.specs.names
            for dtype, path in self._variants(backend)
        ]

    def _variants(self, backend: str) -> list[tuple[str, str]]:
        """Return the combinations of dtype and path in which a backend runs."""
        request, own_model = self.request, self._own_model(backend)
        if own_model is not None:
            return own_model.variants(request.dtypes)
        return [(dtype, path) for dtype in request.dtypes for path in request.paths]

    def _own_model(self, backend: str) -> Against | None:
        """Return the user's own model if a backend of the request is this model, else None."""
        own = self.request.against
        return own if own is not None and backend == own.column else None

    def is_own_model(self, backend: str) -> bool:
        """Return whether a backend of the request is the user's own model."""
        return self._own_model(backend) is not None

    def add_cell(self, cell: Cell, source: str) -> Self:
        """Add a cell's backend and spec to this runner; ``source`` is the spec's name or file.

        Raises:
            UsageError: the backend, the spec or a size is unknown.
            HarnessError: the spec is invalid.
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
        """Make the first line of a record file for this request, with the current time.
        ``arguments`` are the words of the command line, and ``planned`` is the number of planned
        cells."""
        names = map(cell_name, self.whole_plan())
        axes = [dict.fromkeys(part) for part in zip(*names, strict=True)]
        own = self.request.against
        return Head(
            harness=version("backend-comparison-harness"),
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            arguments=tuple(arguments),
            machine=describe_machine(),
            versions=origins(self.backends),
            environment={
                name: dict(variables) for name, variables in self.request.environment.items()
            },
            request=make_request_record(self.request),
            folders=tuple(map(str, self.request.folders)),
            sources={
                name: source
                for name, source in self.sources.items()
                if not self.specs.library.has("model", source)
            }
            | {name: own.target for name in self.request.texts if own is not None},
            files=self._files(),
            limits=self._limits(),
            plan=RunPlan.of(axes, self.request.shard),
            models=dict(map(self._describe_model, self.specs.names[:MOST_MODELS])),
            notes=tuple(self.specs.notes),
            columns=describe_labelled(self.workers),
            planned=planned,
        )

    def _describe_model(self, name: str) -> tuple[str, CheckedModel]:
        """Return the name of a model, and the description of this model for the first line of a
        record file."""
        spec = self.specs[name]
        model, all_sizes = spec.model, {}
        # A user's own model decides which sizes it can have.
        if not all(map(self.is_own_model, self.backends)):
            sizes, batch, time_ = case_sizes(spec, self.request, own=False)
            all_sizes = {**model.sizes, **sizes, "batch": batch, "time": time_}
        layers = {name: use.layer for name, use in model.layers.items()}
        attributes = {
            name: _list_changed_attributes(spec.library, use) for name, use in model.layers.items()
        }
        return name, CheckedModel(
            sizes=all_sizes,
            layers=layers,
            attributes={name: changed for name, changed in attributes.items() if changed},
            equations=model.equations,
            loss=model.loss or "",
        )

    def _files(self) -> dict[str, str]:
        arrays, own = self.request.given, self.request.against
        files = {option: str(path) for option, path in (arrays.files if arrays else {}).items()}
        return files if own is None or self.request.texts else {"--against": own.target, **files}

    def _limits(self) -> dict[str, str]:
        """Return the time and memory limits that the user set: command-line options -> values."""
        request = self.request
        limits = {} if request.timeout == Request.timeout else {"--timeout": f"{request.timeout:g}"}
        memory = request.memory_limit
        return limits if memory is None else {**limits, "--memory": str(-(-memory // 2**20))}

    @cached_property
    def _signatures(self) -> Signatures:
        return Signatures(self.request, self.differences)

    def signature(self, cell: Cell) -> Mapping[str, str]:
        """Return the signature of a cell: a dictionary of everything that could change its numbers,
        e.g. ``{"usable cores": "8"}``."""
        return self._signatures.of(cell, self.specs[cell.spec])

    def add_signature(self, result: CellResult) -> CellResult:
        """Add the cell's signature to a result of this run, and return the result."""
        if result.signature is None:
            result.signature = self.signature(result.cell)
        return result

    def reuse_results(
        self,
        cells: Sequence[Cell],
        recorded: Mapping[Cell, Iterable[CellResult]],
        verdicts: Collection[Verdict] = VERDICTS,
    ) -> tuple[dict[Cell, CellResult], list[str]]:
        """Return the recorded results that are still valid, and texts that say why the other cells
        run again.

        ``recorded`` maps each cell to the results of earlier runs, the latest first. The latest
        result with an unchanged signature is reused if its verdict is in ``verdicts``.
        """
        greetings = Greetings(self.request, self.workers)
        reused: dict[Cell, CellResult] = {}
        reasons: Counter[str] = Counter()
        for cell in cells:
            reason_text = ""
            for result in recorded.get(cell, ()):
                reason = find_reason_to_run(result, self.signature(cell), greetings)
                if reason:
                    reason_text = reason_text or reason
                    continue
                if result.contradicted:
                    reason_text = reason_text or "recorded results contradict one another"
                elif result.verdict in verdicts:
                    reused[cell] = result
                else:
                    reason_text = reason_text or f"the last verdict is {result.verdict}"
                break
            if reason_text and cell not in reused:
                reasons[reason_text] += 1
        return reused, [
            f"{count} cells are run again: {why}" if count > 1 else f"1 cell is run again: {why}"
            for why, count in reasons.items()
        ]

    def run_cell(self, cell: Cell, checks: tuple[str, ...] = ()) -> CellResult:
        """Run one cell. The worker process of its backend stays alive for further cells. ``checks``
        are patterns of check names; if they are empty, the request's patterns apply."""
        spec, worker, request = self.specs[cell.spec], self.workers[cell.backend], self.request
        seconds = request.timeout
        if seconds == Request.timeout and where_huge(spec, request):
            seconds = HUGE_SECONDS
        patience = TimeLimit(seconds, self.stopping)
        own_model = self._own_model(cell.backend)
        # Known differences are faults of framework layers, so they do not apply to a user's model.
        differences = Differences() if own_model else self.differences

        def tell(event: Callable[[Cell, Any], None], what: Any) -> None:
            with self._lock:
                event(cell, what)

        subject: Subject = SpecOnBackend(request.repeat, request.dtypes)
        finding = None
        with with_time_limit(patience), noise_store.unused() if request.fresh else nullcontext():
            try:
                if own_model is not None:
                    subject = UsersModel(own_model)
                    self._check_names(subject, cell, spec, worker)
                small, huge = self.case(spec, own=False), self._huge_case(spec)
                own = small if huge is small else self.case(spec, own=True)
            except OracleFault as fault:
                finding = Finding("oracle", faults=[str(fault)], verdict=fault.verdict)
            except HarnessError:
                raise
            except Exception as error:
                finding = harness_fault(error)
            else:
                self._report_start(cell, worker)
                run = CellRun(cell, small, own, worker, differences, subject, seconds)
                checks = checks or request.checks
                if huge and checks != ("*",):
                    checks = (*checks, "own-sizes")
                stage = partial(tell, self.events.stage_began)
                run = replace(run, checks=checks, huge=huge, thorough=request.thorough, stage=stage)
                code = self.compiled_code.get(cell.backend)
                with code.kept(fingerprint(spec)) if code is not None else nullcontext():
                    result = run.run(partial(tell, self.events.finding_added))
        if finding is not None:
            tell(self.events.finding_added, finding)
            result = CellResult(cell, [finding], seconds=patience.spent, could_not_run=True)
        result.greeting = greeting(worker)
        return result

    def _report_start(self, cell: Cell, worker: Worker) -> None:
        if worker.pid is None and not worker.given_up:
            self.starting(cell.backend, worker.launch.start_timeout)

    def _check_names(self, subject: UsersModel, cell: Cell, spec: Spec, worker: Worker) -> None:
        """Check the names of a user's model, e.g. of its parameters, before the oracle runs. This
        is done once for each spec."""
        if spec.name in self._specs_with_checked_names:
            return
        self._specs_with_checked_names.add(spec.name)
        small, own = (
            programs_of(spec, case_sizes(spec, self.request, own=own)[0]) for own in (False, True)
        )
        self._report_start(cell, worker)
        subject.check_names(worker, self.request.timeout, cell, small, own)

    def case(self, spec: Spec, *, own: bool) -> Case:
        """Return a spec's test case at small sizes, or with ``own`` at the spec's own sizes. If the
        user gave arrays, both test cases have the sizes of these arrays."""
        return self.cases.get(spec, "own" if own and self.request.given is None else "small")

    def _huge_case(self, spec: Spec) -> Case | None:
        """Return the test case of the check ``own-sizes`` if the model is huge, otherwise None."""
        huge = where_huge(spec, self.request)
        if huge == "always":
            return self.case(spec, own=False)
        return self.cases.get(spec, "huge") if huge else None

    def _launch(self, backend: str) -> Launch:
        request = self.request
        own_model = self._own_model(backend)
        python = request.pythons.get(backend, sys.executable)
        code = None if request.fresh else CompiledCode(backend, python)
        if code is not None:
            self.compiled_code[backend] = code
            self.closing.callback(code.close)
        return Launch(
            backend,
            python=python,
            environment=request.environment.get(backend, {}),
            memory_limit=request.memory_limit,
            **(own_model.service if own_model else {"service": request.service}),
            deterministic=request.deterministic,
            start_timeout=request.start_timeout or usual_start_timeout(),
            compiled_code=code.folder if code is not None else None,
        )


def _choose_columns(request: Request) -> Columns:
    """Return the columns of a request. The column of a user's own model, such as
    ``torch@model.Gru``, is the first one."""
    own, pythons = request.against, dict(request.pythons)
    if own is None:
        return choose(request.backends, pythons)
    python = pythons.pop(own.column, sys.executable)
    others = choose(request.backends, pythons) if request.texts else Columns(())
    names = (own.column, *others.names)
    return Columns(names, {**others.pythons, own.column: python}, others.lacking)


def _list_changed_attributes(library: Library, use: LayerUse) -> dict[str, str]:
    """Return the attributes of a layer that differ from their defaults, as a dictionary from name
    to text. Attributes that are sizes are left out."""
    defaults = content(library.find("layer", use.layer), Layer).attributes
    return {
        name: json.dumps(value) if isinstance(value, bool) else str(value)
        for name, value in (use.model_extra or {}).items()
        if defaults[name] not in ("size", value)
    }
