"""A session in another process, behind a deadline."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from textwrap import indent
from typing import Any, TypeVar, cast

from harness.arrays import Array, Arrays
from harness.errors import UsageError
from harness.program.ir import Phase, Program, walk_nodes
from harness.program.primitives import OFFERED, offers_needed
from harness.program.serial import encoded
from harness.program.updates import UpdateRule
from harness.runtime.answers import Arguments, IllFormed, Misfit
from harness.runtime.labels import CPU
from harness.runtime.paths import COMPILED_PATHS
from harness.runtime.session import CannotStart
from harness.worker import answers
from harness.worker.answers import Forms
from harness.worker.worker import Outcome, Worker

# With what the faulthandler of a dying process begins.
DYING = "Fatal Python error:"
# What results hold: arrays, and what stands in the place of one.
Tensors = dict[str, Array | Misfit]
Service = TypeVar("Service")
# One named value: its name, its time step where it was made in a loop, and the array.
Traced = tuple[str, int | None, Array | Misfit]


class WorkerFault(Exception):
    """A call that did not succeed; ``outcome`` says how, and ``backend`` of whom, where several
    are asked."""

    def __init__(self, verb: str, outcome: Outcome, backend: str = "") -> None:
        super().__init__(f"{verb}: {outcome.cause}")
        self.verb, self.outcome, self.backend = verb, outcome, backend

    @property
    def traceback(self) -> str:
        """What is behind it."""
        return told(self.outcome)

    @property
    def cannot_start(self) -> bool:
        """Whether the backend computes nothing at all here."""
        return self.outcome.kind == CannotStart.__name__

    @property
    def users_error(self) -> str | None:
        """What a :class:`UsageError` in the worker said, None where it was something else."""
        return self.outcome.message if self.outcome.kind == UsageError.__name__ else None


def told(outcome: Outcome) -> str:
    """The traceback of what was raised, or what Python wrote of itself as it crashed."""
    start = outcome.log.find(DYING)
    return outcome.traceback or (outcome.log[start:] if start >= 0 else "")


def with_trace(message: str, traceback: str) -> str:
    """A message for standard error, and under it the traceback that is behind it, if any."""
    if not traceback:
        return message
    return f"{message}\nIts traceback:\n{indent(traceback.rstrip(), '  ')}"


def not_offered(
    hello: Mapping[str, Any],
    device: str,
    dtype: str,
    programs: Iterable[Program | UpdateRule | None] = (),
    path: str = "",
) -> str:
    """What of these a worker does not claim, by its own greeting, to have; empty if nothing.

    ``programs`` and rules may need primitives that a backend need not have, and a ``path`` a
    compiler.
    """
    if not offers_path(hello, path):
        return f"path {path!r} is not offered: there is no compiler of whole steps"
    every = (p.every_node if isinstance(p, UpdateRule) else p.nodes for p in programs if p)
    ops = {node.op for nodes in every for node in walk_nodes(nodes)}
    lacking = sorted(offers_needed(ops) - offers_of(hello, dtype))
    if lacking:
        (op, *_), offered = lacking, hello.get("primitives", ())
        where = f" in {dtype}" if op in offered else ""
        return f"the model does not fit: it needs {op} ({OFFERED[op]}), which is not offered{where}"
    for kind, wanted in (("device", device), ("dtype", dtype)):
        offered = hello.get(f"{kind}s", ())
        if wanted not in offered:
            listed = ", ".join(offered) or "none"
            return f"{kind} {wanted!r} is not offered (offered: {listed})"
    return ""


def offers_of(hello: Mapping[str, Any], dtype: str) -> frozenset[str]:
    """Return the primitives, of those that a backend need not have, that it has in a dtype."""
    lacking = hello.get("lacks", {}).get(dtype, ())
    return frozenset(hello.get("primitives", ())).difference(lacking)


def check_offered(
    worker: Worker,
    device: str,
    dtype: str,
    programs: Iterable[Program | UpdateRule | None] = (),
    path: str = "",
) -> None:
    """Start a worker, and check that it has these: see :func:`not_offered`.

    Raises:
        WorkerFault: it does not start.
        UsageError: it does not offer one of them.
    """
    lacking = not_offered(hello_of(worker), device, dtype, programs, path)
    if lacking:
        raise UsageError(f"{worker.launch.backend}: {lacking}")


def hello_of(worker: Worker) -> Mapping[str, Any]:
    """The greeting of a worker, which is started.

    Raises:
        WorkerFault: it does not start.
    """
    started = worker.start()
    if not started.ok:
        raise WorkerFault("start", started, worker.launch.backend)
    return worker.hello or {}


def nearest_device(worker: Worker, wanted: str) -> str:
    """The device on which a worker's backend is held against another one on the device that is
    wanted: its CPU, if it has none such, as numpy beside a card.

    Raises:
        WorkerFault: the worker does not start.
    """
    offered = hello_of(worker).get("devices", ())
    return CPU if wanted not in offered and CPU in offered else wanted


def offers_path(hello: Mapping[str, Any], path: str) -> bool:
    """Whether a worker has a path, by its own greeting: not all have a compiler of whole steps."""
    return path not in COMPILED_PATHS or path in hello.get("compiles", ())


def asked(
    worker: Worker, forms: Forms, verb: str, payload: Mapping[str, Any], timeout: float
) -> Outcome:
    """What came of a call; an answer that is not of the verb's form is an error of the call."""
    outcome = worker.call(verb, payload, timeout)
    if not outcome.ok:
        return outcome
    try:
        return replace(outcome, value=answers.answer(forms, verb, payload, outcome.value))
    except IllFormed as error:
        return replace(outcome, status="error", value=None, cause=f"IllFormed: {error}")


def answered(
    worker: Worker, forms: Forms, verb: str, payload: Mapping[str, Any], timeout: float
) -> Outcome:
    """The outcome of a call that succeeded.

    Raises:
        WorkerFault: it did not, or its answer is not of the verb's form.
    """
    outcome = asked(worker, forms, verb, payload, timeout)
    if not outcome.ok:
        raise WorkerFault(verb, outcome, worker.launch.backend)
    return outcome


@cache
def session_forms() -> Forms:
    """The answers of a session; importing the service takes time that not every command needs."""
    from harness.runtime.service import SessionService

    return Forms(SessionService)


def client(service: type[Service], call: Callable[..., Any], prefix: str = "") -> Service:
    """Return a client of ``service``: each of its methods calls the verb of its name.

    The client has the methods of the service itself, with the same parameters and types, so no verb
    is declared twice. ``call`` gets the name of a verb, behind ``prefix``, and its arguments.
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

        def run(*arguments: Any, **named: Any) -> Any:
            # Arguments that are left out stay so: a baseline need not know them.
            bound = signature.bind(self, *arguments, **named).arguments
            return self.call(self.prefix + verb, **{n: bound[n] for n in [*bound][1:]})

        return run


class Remote:
    """Drives one worker's session, whose answers have ``forms``. All calls together must end
    ``timeout`` seconds from now, to which is added what is ``excused`` in between: the seconds that
    the caller took for itself.
    ``denormals`` is whether the backend of the open session promises to keep them, ``repeats``
    whether its gradients have the same bits each time, and ``automatic`` whether the framework
    makes them, in whole steps too."""

    def __init__(
        self,
        worker: Worker,
        timeout: float,
        excused: Callable[[], float] = lambda: 0.0,
        forms: Forms | None = None,
    ) -> None:
        self.worker, self.excused = worker, excused
        self.forms = forms or session_forms()
        self.denormals, self.repeats, self.automatic = False, True, False
        self.deadline = time.monotonic() + timeout - excused()

    def call(self, verb: str, **payload: Any) -> Any:
        """The verb's value; :class:`WorkerFault` if it failed, crashed or came too late."""
        return answered(self.worker, self.forms, verb, payload, self._left()).value

    def outcome(self, verb: str, **payload: Any) -> Outcome:
        """The outcome of a verb that is allowed to fail."""
        return asked(self.worker, self.forms, verb, payload, self._left())

    def _left(self) -> float:
        return max(self.deadline + self.excused() - time.monotonic(), 0.001)

    def open(
        self,
        training: Program,
        inference: Program,
        rule: UpdateRule | None,
        path: str,
        dtype: str,
        device: str,
    ) -> dict[str, str]:
        """Start a session that is compiled quickly; returns the path of each layer."""
        value = self.call(
            "open",
            training=encoded(training),
            inference=encoded(inference),
            rule=encoded(rule),
            path=path,
            dtype=dtype,
            device=device,
            quick=True,
        )
        self.denormals = bool(value.get("denormals"))
        self.repeats = bool(value.get("repeats", True))
        self.automatic = bool(value.get("automatic"))
        return dict(value["paths"])

    def use_rule(self, rule: UpdateRule) -> dict[str, str]:
        """Train with another optimizer."""
        return dict(self.call("use_rule", rule=encoded(rule))["paths"])

    def load(self, material: Arguments) -> None:
        """Set parameters and statistics."""
        self.call("load", parameters=material.parameters, statistics=material.statistics)

    def forward(
        self,
        phase: Phase,
        inputs: Arrays,
        state: Mapping[str, Any],
        targets: Arrays | None = None,
    ) -> Tensors:
        """Results of a forward pass."""
        payload = {"phase": phase, "inputs": inputs, "state": state, "targets": targets}
        found: Tensors = self.call("forward", **payload)
        return found

    def gradients(
        self, material: Arguments, along: Arrays | None = None, phase: Phase = "training"
    ) -> Tensors:
        """Results, and ``gradient.NAME``."""
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
        """Every named value of a forward pass, with its time step in a loop; with ``loss`` those
        of the loss, too. Values of ``instead`` take the place of those that are made."""
        more: dict[str, Any] = {"targets": material.targets} if loss else {}
        if instead:
            more["instead"] = [list(entry) for entry in instead]
        found = self.call(
            "trace", phase=phase, inputs=material.inputs, state=material.state, **more
        )
        return [(name, step, value) for name, step, value in found]

    def probe(self, batch: int, time: int) -> dict[str, Any]:
        """How many primitives were ``tried`` by themselves, and their ``faults`` in words."""
        probed: dict[str, Any] = self.call("primitives", batch=batch, time=time)
        return probed

    def train(
        self, batches: Sequence[Mapping[str, Any]], state: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One step for each batch: ``results``, ``parameters``, ``statistics`` and ``slots``."""
        steps: list[dict[str, Any]] = self.call("train", batches=list(batches), state=state)
        return steps
