"""Calls to a worker: run the methods of a session (a loaded model) in its process, within a
deadline."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar, cast

from harness.arrays import Array, Arrays
from harness.errors import UsageError
from harness.program.ir import Phase, Program, walk_nodes
from harness.program.primitives import DERIVABLE, OFFERED, offers_needed
from harness.program.serial import encoded
from harness.program.updates import UpdateRule
from harness.runtime.answers import Arguments, IllFormed, Misfit
from harness.runtime.labels import CPU
from harness.runtime.paths import COMPILED_PATHS
from harness.runtime.session import CannotStart
from harness.worker import answers
from harness.worker.answers import Forms
from harness.worker.worker import Outcome, Worker

# The words with which the report of Python's faulthandler about a crash begins.
DYING = "Fatal Python error:"
# Results by name. A Misfit describes a value that is not an array of numbers.
Tensors = dict[str, Array | Misfit]
Service = TypeVar("Service")
# A named value: its name, its time step (None outside of loops), and the array.
Traced = tuple[str, int | None, Array | Misfit]


class WorkerFault(Exception):
    """Error: a call to a worker failed. It has the name of the called method, the outcome of the
    call, and the backend."""

    def __init__(self, verb: str, outcome: Outcome, backend: str = "") -> None:
        super().__init__(f"{verb}: {outcome.cause}")
        self.verb, self.outcome, self.backend = verb, outcome, backend

    @property
    def traceback(self) -> str:
        """The traceback of the error in the worker."""
        return failure_text(self.outcome)

    @property
    def cannot_start(self) -> bool:
        """True if the framework can be imported, but cannot compute anything on this machine, e.g.
        because it finds no device."""
        return self.outcome.kind == CannotStart.__name__

    @property
    def users_error(self) -> str | None:
        """The message of a :class:`UsageError` in the worker; None for other errors."""
        return self.outcome.message if self.outcome.kind == UsageError.__name__ else None


def failure_text(outcome: Outcome) -> str:
    """Return the traceback of the exception in the worker. If the process crashed, return the
    report of Python's faulthandler instead."""
    start = outcome.log.find(DYING)
    return outcome.traceback or (outcome.log[start:] if start >= 0 else "")


def missing_requirement(
    hello: Mapping[str, Any],
    device: str,
    dtype: str,
    programs: Iterable[Program | UpdateRule | None] = (),
    path: str = "",
) -> str:
    """Return a message about the first requirement that a worker does not meet; return an empty
    text if it meets all.

    ``hello`` is the worker's greeting (first message), which lists its devices, dtypes and optional
    primitives. ``programs`` are the programs and update rules to run; the worker must have the
    optional primitives that they use. ``path`` is an execution path, which may need a compiler.
    """
    if not offers_path(hello, path):
        return f"path {path!r} is not offered: there is no compiler of whole steps"
    every = (p.every_node if isinstance(p, UpdateRule) else p.nodes for p in programs if p)
    ops = {node.op for nodes in every for node in walk_nodes(nodes)}
    missing = sorted(offers_needed(ops) - offers_of(hello, dtype))
    if missing:
        (op, *_), offered = missing, hello.get("primitives", ())
        where = f" in {dtype}" if op in offered else ""
        return (
            f"the model or its optimizer needs {op} ({OFFERED[op]}), which the backend does not "
            f"offer{where}"
        )
    for kind, requested in (("device", device), ("dtype", dtype)):
        offered = hello.get(f"{kind}s", ())
        if requested not in offered:
            available = ", ".join(offered) or "none"
            return f"{kind} {requested!r} is not offered (offered: {available})"
    if dtype in hello.get("refuses", {}).get(device, ()):
        return f"device {device!r} has no dtype {dtype!r}"
    return ""


def offers_of(hello: Mapping[str, Any], dtype: str) -> frozenset[str]:
    """Return the optional primitives (operations such as ``erf``) that a backend has in a dtype,
    according to its greeting ``hello``, or that the harness derives for the backend."""
    lacking = hello.get("lacks", {}).get(dtype, ())
    return frozenset(hello.get("primitives", ())).difference(lacking).union(DERIVABLE)


def check_offered(
    worker: Worker,
    device: str,
    dtype: str,
    programs: Iterable[Program | UpdateRule | None] = (),
    path: str = "",
) -> None:
    """Start a worker if it is not running, and check that it offers what is needed: the device, the
    dtype, the optional primitives that the programs use, and the execution path.

    Raises:
        WorkerFault: the worker does not start.
        UsageError: the worker does not offer one of these.
    """
    lacking = missing_requirement(hello_of(worker), device, dtype, programs, path)
    if lacking:
        raise UsageError(f"{worker.launch.backend}: {lacking}")


def hello_of(worker: Worker) -> Mapping[str, Any]:
    """Start a worker if it is not running, and return its greeting (first message), e.g. with its
    devices and dtypes.

    Raises:
        WorkerFault: the worker does not start.
    """
    started = worker.start()
    if not started.ok:
        raise WorkerFault("start", started, worker.launch.backend)
    return worker.hello or {}


def nearest_device(worker: Worker, requested: str) -> str:
    """Return the requested device if the worker has it, otherwise the CPU.

    For example, numpy runs on the CPU while other backends use a GPU.

    Raises:
        WorkerFault: the worker does not start.
    """
    offered = hello_of(worker).get("devices", ())
    return CPU if requested not in offered and CPU in offered else requested


def offers_path(hello: Mapping[str, Any], path: str) -> bool:
    """Return whether a worker can run an execution path, according to its greeting ``hello``. Some
    paths need a compiler of whole steps."""
    return path not in COMPILED_PATHS or path in hello.get("compiles", ())


def call_worker(
    worker: Worker, forms: Forms, verb: str, payload: Mapping[str, Any], timeout: float
) -> Outcome:
    """Call the method ``verb`` of a worker with the arguments ``payload``, and return the outcome.
    If the answer does not have its type in ``forms``, the outcome is an error."""
    outcome = worker.call(verb, payload, timeout)
    if not outcome.ok:
        return outcome
    try:
        return replace(outcome, value=answers.check_answer(forms, verb, payload, outcome.value))
    except IllFormed as error:
        return replace(outcome, status="error", value=None, cause=f"IllFormed: {error}")


def call_or_raise(
    worker: Worker, forms: Forms, verb: str, payload: Mapping[str, Any], timeout: float
) -> Outcome:
    """Call the method ``verb`` of a worker with the arguments ``payload``, and return the outcome
    of the successful call.

    Raises:
        WorkerFault: the call failed, or its answer does not have its type in ``forms``.
    """
    outcome = call_worker(worker, forms, verb, payload, timeout)
    if not outcome.ok:
        raise WorkerFault(verb, outcome, worker.launch.backend)
    return outcome


@cache
def session_answer_types() -> Forms:
    """Return the types of the answers of a session, by method name. The module of the session is
    imported inside this function, because the import is slow."""
    from harness.runtime.service import SessionService

    return Forms(SessionService)


def client(service: type[Service], call: Callable[..., Any], prefix: str = "") -> Service:
    """Return an object with the methods of the class ``service``. Each method makes a call to the
    worker, and returns the answer.

    A method ``name`` calls ``call(prefix + name, **arguments)``.
    """
    return cast("Service", _Client(service, call, prefix))


@cache
def _signature(service: type, verb: str) -> inspect.Signature:
    return inspect.signature(getattr(service, verb))


@dataclass(frozen=True)
class _Client:
    service: type
    call: Callable[..., Any]
    prefix: str

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        signature = _signature(self.service, verb)

        def run(*arguments: Any, **keywords: Any) -> Any:
            # Do not send omitted arguments, because an older version of the harness may not know
            # them.
            bound = signature.bind(self, *arguments, **keywords).arguments
            return self.call(self.prefix + verb, **{n: bound[n] for n in [*bound][1:]})

        return run


class Remote:
    """A client of the session (a loaded model) in one worker. ``forms`` are the types of the
    answers.

    All calls together must end within ``timeout`` seconds from now. ``excused()`` returns the
    seconds that the caller itself needed; they are added to this time. :meth:`open` sets three
    flags:

    - ``denormals``: the backend promises to keep denormals.
    - ``repeats``: its gradients have the same bits each time.
    - ``automatic``: the framework computes the gradients itself.
    """

    def __init__(
        self,
        worker: Worker,
        timeout: float,
        excused: Callable[[], float] = lambda: 0.0,
        forms: Forms | None = None,
    ) -> None:
        self.worker, self.excused = worker, excused
        self.forms = forms or session_answer_types()
        self.denormals, self.repeats, self.automatic = False, True, False
        self.deadline = time.monotonic() + timeout - excused()

    def call(self, verb: str, **payload: Any) -> Any:
        """Call the method ``verb`` of the session and return its result; raise :class:`WorkerFault`
        if the call fails or is too late."""
        return call_or_raise(
            self.worker, self.forms, verb, payload, self._remaining_seconds()
        ).value

    def outcome(self, verb: str, **payload: Any) -> Outcome:
        """Call the method ``verb`` of the session and return the outcome of the call. If the call
        fails, the outcome says so, and no error is raised."""
        return call_worker(self.worker, self.forms, verb, payload, self._remaining_seconds())

    def _remaining_seconds(self) -> float:
        return max(self.deadline + self.excused() - time.monotonic(), 0.001)

    def open(
        self,
        training: Program,
        inference: Program,
        rule: UpdateRule | None,
        path: str,
        dtype: str,
        device: str,
        eager: bool = False,
        compiled_whole: bool = False,
    ) -> dict[str, str]:
        """Open a session with a model's programs, compiled quickly rather than for speed, or not at
        all with ``eager``, or as whole passes with ``compiled_whole``. Return a dictionary from
        each layer to what runs it (e.g. ``torch.lstm`` or ``equations``)."""
        # An older version does not know these arguments.
        ways = {"eager": eager, "compiled_whole": compiled_whole}
        value = self.call(
            "open",
            training=encoded(training),
            inference=encoded(inference),
            rule=encoded(rule),
            path=path,
            dtype=dtype,
            device=device,
            quick=True,
            **{name: True for name, wanted in ways.items() if wanted},
        )
        self.denormals = bool(value.get("denormals"))
        self.repeats = bool(value.get("repeats", True))
        self.automatic = bool(value.get("automatic"))
        return dict(value["paths"])

    def load(self, material: Arguments) -> None:
        """Set the model's parameters and statistics to those of ``material``."""
        self.call("load", parameters=material.parameters, statistics=material.statistics)

    def forward(
        self,
        phase: Phase,
        inputs: Arrays,
        state: Mapping[str, Any],
        targets: Arrays | None = None,
    ) -> Tensors:
        """Run the model's program for training or inference (``phase``); return a dictionary from
        name, e.g. ``output.y``, to result."""
        payload = {"phase": phase, "inputs": inputs, "state": state, "targets": targets}
        results: Tensors = self.call("forward", **payload)
        return results

    def gradients(
        self, material: Arguments, along: Arrays | None = None, phase: Phase = "training"
    ) -> Tensors:
        """Return a dictionary with the results of the model (e.g. ``output.y``) and the gradients
        of the parameters and inputs (e.g. ``gradient.W``).

        They are gradients of the loss. If ``along`` gives cotangents (a weight for each entry of a
        result), they are gradients of the sum of results times cotangents.
        """
        value = self.call(
            "gradients",
            phase=phase,
            inputs=material.inputs,
            state=material.state,
            targets=material.targets,
            cotangents=along,
        )
        gradients = {f"gradient.{n}": g for n, g in value["gradients"].items()}
        return {**value["results"], **gradients}

    def trace(
        self,
        phase: Phase,
        material: Arguments,
        *,
        loss: bool = False,
        instead: Sequence[tuple[str, int | None, Array]] = (),
    ) -> list[Traced]:
        """Run a forward pass with the inputs of ``material``; return a list with every named value
        as a tuple: name, time step if a loop computes the value (else None), array.

        With ``loss``, the values of the loss are included. ``instead`` has tuples of the same kind:
        their arrays replace computed values.
        """
        optional: dict[str, Any] = {"targets": material.targets} if loss else {}
        if instead:
            optional["instead"] = [list(entry) for entry in instead]
        values = self.call(
            "trace", phase=phase, inputs=material.inputs, state=material.state, **optional
        )
        return [(name, step, value) for name, step, value in values]

    def train(
        self, batches: Sequence[Mapping[str, Any]], state: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Make one training step per batch, starting with ``state``; return a list with one
        dictionary per step.

        Its keys are ``results`` (of the step), and ``parameters``, ``statistics`` and ``slots``
        (all after the step).
        """
        steps: list[dict[str, Any]] = self.call("train", batches=list(batches), state=state)
        return steps
