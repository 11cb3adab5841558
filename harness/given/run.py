"""Running one pass on a user's own arrays, on any backend or on the oracle."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from harness.arrays import Array, ArrayDict
from harness.command.ranges import SEED, TIMEOUT
from harness.environments.columns import one
from harness.errors import CouldNotRun, UsageError, check_known
from harness.given.options import Settings
from harness.language.initial_values import initial_parameters, initial_state, initial_statistics
from harness.language.model import Spec
from harness.language.noise import noise_of
from harness.oracle.case import BYTES, SECONDS, entries_of
from harness.oracle.given import Given
from harness.oracle.oracle import Oracle
from harness.oracle.patience import Patience, at_work, spent, with_patience
from harness.program.ir import Phase, Program
from harness.program.signature import group_of, noise_ports
from harness.runtime.answers import Arguments, IllFormed, whole
from harness.runtime.labels import check_device
from harness.runtime.memory import check_fits
from harness.runtime.paths import PATHS
from harness.runtime.session import Session
from harness.worker.launch import Launch
from harness.worker.remote import Remote, WorkerFault, check_offered
from harness.worker.worker import Worker

ORACLE = "oracle"
WANTED = ("outputs", "loss", "gradients")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "dtype": ("float64", "float32"),
    "path": PATHS,
    "phase": ("training", "inference"),
}


class BackendError(CouldNotRun):
    """Error if a backend could not be run."""


@dataclass(frozen=True, eq=False)
class PassResult:
    """The results of a pass as arrays by name; a dictionary is empty if the user did not ask for
    it.

    - Floats have the dtype of the pass. Shapes are those of the spec: ``[batch, time, ...]`` for a
      sequence.
    - ``state`` is the new state. ``statistics`` are the moving statistics after the batch.
    - ``gradients`` are the gradients of the loss, by the name of the parameter. Gradients of float
      inputs and states are named ``input.NAME`` and ``state.NAME``.
    - ``paths`` says which code ran each layer and loss: the framework's own, or ``equations``.
    - ``sizes`` are all sizes, including batch and time.
    """

    outputs: ArrayDict
    state: ArrayDict
    statistics: ArrayDict
    loss: float | None
    metrics: dict[str, float]
    gradients: ArrayDict
    paths: dict[str, str]
    sizes: dict[str, int]


def run_once(
    spec: Spec, backend: str, given: Given, want: Collection[str], settings: Settings
) -> PassResult:
    """Run one pass and return its results, as :func:`harness.run` does.

    Raises:
        HarnessError: the request is invalid, or the backend could not be run.
    """
    _check(spec, backend, given, want, settings)
    programs = (
        spec.program("training", **given.sizes),
        spec.program("inference", **given.sizes),
    )
    material = _whole(programs[0], given, settings.seed)
    batch, time = given.batch or 1, given.time or spec.length
    check_fits(programs[0], batch, time, {})
    if backend == ORACLE:
        entries = entries_of(programs[0], batch, time)
        patience = Patience(settings.timeout)
        with with_patience(patience), at_work(entries * BYTES, entries * SECONDS):
            ran = _on_oracle(programs, material, want, settings.phase)
    else:
        ran = _on_backend(backend, programs, material, want, settings)
    results, gradients, paths = ran
    chosen = {"batch": given.batch, "time": given.time}
    outputs = "outputs" in want
    return PassResult(
        outputs=group_of(results, "output.") if outputs else {},
        state=group_of(results, "state.") if outputs else {},
        statistics=group_of(results, "statistics.") if outputs else {},
        loss=float(results["loss"]) if "loss" in want else None,
        metrics={n: float(a) for n, a in group_of(results, "metric.").items() if "loss" in want},
        gradients=gradients,
        paths=paths,
        sizes={**given.sizes, **{n: size for n, size in chosen.items() if size is not None}},
    )


def _check(
    spec: Spec, backend: str, given: Given, want: Collection[str], settings: Settings
) -> None:
    """Raise :class:`UsageError` if the request of a pass is invalid."""
    if isinstance(want, str) or not want:
        raise UsageError(f"want lists one or more of {', '.join(WANTED)}, found {want!r}")
    asked: list[tuple[str, Any, tuple[str, ...]]] = [("want", name, WANTED) for name in want]
    asked += [(name, getattr(settings, name), known) for name, known in CHOICES.items()]
    for what, value, known in asked:
        check_known(what, value, known)
    SEED.check(settings.seed)
    TIMEOUT.check(settings.timeout)
    if not isinstance(backend, str):
        raise UsageError(f"a backend is asked for by its name, found {backend!r}")
    if backend != ORACLE:
        column, _ = one(backend, settings.python)
        check_device(settings.device, (column,))
    elif (settings.dtype, settings.device) != ("float64", "cpu"):
        raise UsageError("the oracle is numpy in float64 on the cpu: leave dtype and device out")
    program = spec.programs["training"]
    needed = [port for port in program.inputs if port not in noise_ports(program)]
    if needed and not given.arrays.inputs:
        raise UsageError(f"inputs are missing (needed: {_names(needed)})")
    if set(want) - {"outputs"}:
        instead = 'or want only ("outputs",)'
        if program.loss is None:
            raise UsageError(f"{spec.name} declares no loss: declare one, {instead}")
        if program.targets and not given.arrays.targets:
            missing = _names(program.targets)
            raise UsageError(f"a loss needs targets (missing: {missing}): give them, {instead}")


def _names(ports: Any) -> str:
    return ", ".join(port.name for port in ports)


def _whole(program: Program, given: Given, seed: int) -> Arguments:
    """Return all arguments of a pass. Noise and missing arrays have the values with which training
    starts."""
    arrays = given.arrays
    sizes = {"batch": given.batch or 1, "time": given.time or 1}
    return Arguments(
        arrays.parameters or initial_parameters(program, seed),
        arrays.statistics or initial_statistics(program),
        {**noise_of(program, sizes, seed), **arrays.inputs},
        arrays.state or initial_state(program, given.batch or 1),
        arrays.targets,
    )


Ran = tuple[Mapping[str, Array], ArrayDict, dict[str, str]]


def _on_oracle(
    programs: tuple[Program, Program], material: Arguments, want: Collection[str], phase: Phase
) -> Ran:
    session = Session(Oracle(), *programs, path="derived", dtype="float64")
    session.load(material.parameters, material.statistics)
    inputs, state, targets = material.inputs, material.state, material.targets
    if "gradients" in want:
        results, gradients = session.gradients(phase, inputs, state, targets)
        return results, gradients, session.paths()
    results = session.forward(phase, inputs, state, targets if "loss" in want else None)
    return results, {}, session.paths()


def _on_backend(
    backend: str,
    programs: tuple[Program, Program],
    material: Arguments,
    want: Collection[str],
    how: Settings,
) -> Ran:
    with Worker(Launch(*one(backend, how.python), how.environment)) as worker:
        remote = Remote(worker, how.timeout, spent)
        try:
            check_offered(worker, how.device, how.dtype, programs)
            paths = remote.open(*programs, None, how.path, how.dtype, how.device)
            remote.load(material)
            if "gradients" in want:
                found = whole(remote.gradients(material, phase=how.phase))
                return found, group_of(found, "gradient."), paths
            targets = material.targets if "loss" in want else None
            found = whole(remote.forward(how.phase, material.inputs, material.state, targets))
            return found, {}, paths
        except WorkerFault as fault:
            raise BackendError(f"{backend}: {fault}", fault.traceback) from None
        except IllFormed as error:
            raise BackendError(f"{backend}: {error}") from None
