"""A single pass of a model on a user's own arrays, on any backend or on the oracle."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.arrays import Array, ArrayDict
from harness.command.declared import build
from harness.command.options import process_of
from harness.command.outcome import CommandResult
from harness.command.ranges import SEED, TIMEOUT
from harness.environments.columns import choose_one
from harness.errors import CouldNotRun, UsageError, check_known
from harness.files import kinds
from harness.files.atomic import write_whole
from harness.files.user_file import FileFault, displayed, why
from harness.given.files import gather
from harness.given.options import PassOptions, Settings
from harness.language.initial_values import initial_parameters, initial_state, initial_statistics
from harness.language.model import Spec, load_spec
from harness.language.noise import noise_of
from harness.oracle.case import BYTES, SECONDS, entries_of
from harness.oracle.oracle import Oracle
from harness.oracle.time_limit import TimeLimit, spent, with_time_limit, within_limits
from harness.oracle.user_arrays import UserArrays
from harness.program.ir import Phase, Program
from harness.program.signature import group_of, noise_ports
from harness.runtime.answers import Arguments, IllFormed, check_all_arrays
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
    """Error: the backend could not be run."""


@dataclass(frozen=True, eq=False)
class PassResult:
    """The results of a pass, as dictionaries from name to array. A dictionary is empty if the user
    did not ask for these results.

    - Floats have the dtype of the pass. Shapes are as in the spec, e.g. ``[batch, time, ...]`` for
      a sequence.
    - ``state`` is the new state. ``statistics`` are the moving statistics after the batch.
    - ``gradients`` are the gradients of the loss, by parameter name. Gradients of float inputs and
      states are named ``input.NAME`` and ``state.NAME``.
    - ``paths`` maps each layer and loss to the code that ran it: a framework function, or
      ``equations``.
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
    spec: Spec, backend: str, user_arrays: UserArrays, want: Collection[str], settings: Settings
) -> PassResult:
    """Run one pass and return the results that ``want`` names (``outputs``, ``loss``,
    ``gradients``), as :func:`harness.run` does.

    Raises:
        HarnessError: the request is invalid, or the backend could not be run.
    """
    _check_request(spec, backend, user_arrays, want, settings)
    programs = (
        spec.program("training", **user_arrays.sizes),
        spec.program("inference", **user_arrays.sizes),
    )
    material = _complete_arguments(programs[0], user_arrays, settings.seed)
    batch, time = user_arrays.batch or 1, user_arrays.time or spec.length
    check_fits(programs[0], batch, time, {})
    if backend == ORACLE:
        entries = entries_of(programs[0], batch, time)
        patience = TimeLimit(settings.timeout)
        with with_time_limit(patience), within_limits(entries * BYTES, entries * SECONDS):
            outcome = _run_on_oracle(programs, material, want, settings.phase)
    else:
        outcome = _run_on_backend(backend, programs, material, want, settings)
    results, gradients, paths = outcome
    given_sizes = {"batch": user_arrays.batch, "time": user_arrays.time}
    outputs = "outputs" in want
    return PassResult(
        outputs=group_of(results, "output.") if outputs else {},
        state=group_of(results, "state.") if outputs else {},
        statistics=group_of(results, "statistics.") if outputs else {},
        loss=float(results["loss"]) if "loss" in want else None,
        metrics={n: float(a) for n, a in group_of(results, "metric.").items() if "loss" in want},
        gradients=gradients,
        paths=paths,
        sizes={
            **user_arrays.sizes,
            **{n: size for n, size in given_sizes.items() if size is not None},
        },
    )


def _check_request(
    spec: Spec, backend: str, user_arrays: UserArrays, want: Collection[str], settings: Settings
) -> None:
    """Raise :class:`UsageError` if the settings of a pass are invalid, or do not fit the spec, the
    backend or the user's arrays."""
    if isinstance(want, str) or not want:
        raise UsageError(f"want must list one or more of {', '.join(WANTED)}, found {want!r}")
    choices: list[tuple[str, Any, tuple[str, ...]]] = [("want", name, WANTED) for name in want]
    choices += [(name, getattr(settings, name), allowed) for name, allowed in CHOICES.items()]
    for option, value, allowed in choices:
        check_known(option, value, allowed)
    SEED.check(settings.seed)
    TIMEOUT.check(settings.timeout)
    if not isinstance(backend, str):
        raise UsageError(f"a backend must be given by name, found {backend!r}")
    if backend != ORACLE:
        column, _ = choose_one(backend, settings.python)
        check_device(settings.device, (column,))
    elif (settings.dtype, settings.device) != ("float64", "cpu"):
        raise UsageError("the oracle always runs in float64 on the cpu: leave dtype and device out")
    program = spec.programs["training"]
    needed = [port for port in program.inputs if port not in noise_ports(program)]
    if needed and not user_arrays.arrays.inputs:
        raise UsageError(f"inputs are missing (needed: {_join_names(needed)})")
    if set(want) - {"outputs"}:
        instead = 'or want only ("outputs",)'
        if program.loss is None:
            raise UsageError(f"{spec.name} declares no loss: declare one, {instead}")
        if program.targets and not user_arrays.arrays.targets:
            missing = _join_names(program.targets)
            raise UsageError(f"a loss needs targets (missing: {missing}): give them, {instead}")


def _join_names(ports: Any) -> str:
    return ", ".join(port.name for port in ports)


def _complete_arguments(program: Program, user_arrays: UserArrays, seed: int) -> Arguments:
    """Return all arrays for a pass. If the user did not give an array, it has the value with which
    a training starts; noise is drawn with ``seed``."""
    arrays = user_arrays.arrays
    sizes = {"batch": user_arrays.batch or 1, "time": user_arrays.time or 1}
    return Arguments(
        arrays.parameters or initial_parameters(program, seed),
        arrays.statistics or initial_statistics(program),
        {**noise_of(program, sizes, seed), **arrays.inputs},
        arrays.state or initial_state(program, user_arrays.batch or 1),
        arrays.targets,
    )


PassOutcome = tuple[Mapping[str, Array], ArrayDict, dict[str, str]]


def _run_on_oracle(
    programs: tuple[Program, Program], material: Arguments, want: Collection[str], phase: Phase
) -> PassOutcome:
    session = Session(Oracle(), *programs, path="derived", dtype="float64")
    session.load(material.parameters, material.statistics)
    inputs, state, targets = material.inputs, material.state, material.targets
    if "gradients" in want:
        results, gradients = session.gradients(phase, inputs, state, targets)
        return results, gradients, session.paths()
    results = session.forward(phase, inputs, state, targets if "loss" in want else None)
    return results, {}, session.paths()


def _run_on_backend(
    backend: str,
    programs: tuple[Program, Program],
    material: Arguments,
    want: Collection[str],
    settings: Settings,
) -> PassOutcome:
    with Worker(Launch(*choose_one(backend, settings.python), settings.environment)) as worker:
        remote = Remote(worker, settings.timeout, spent)
        try:
            check_offered(worker, settings.device, settings.dtype, programs)
            paths = remote.open(*programs, None, settings.path, settings.dtype, settings.device)
            remote.load(material)
            if "gradients" in want:
                results = check_all_arrays(remote.gradients(material, phase=settings.phase))
                return results, group_of(results, "gradient."), paths
            targets = material.targets if "loss" in want else None
            results = check_all_arrays(
                remote.forward(settings.phase, material.inputs, material.state, targets)
            )
            return results, {}, paths
        except WorkerFault as fault:
            raise BackendError(f"{backend}: {fault}", fault.traceback) from None
        except IllFormed as error:
            raise BackendError(f"{backend}: {error}") from None


# The command ``harness run``: its output, files and exit codes.


def run_run(options: PassOptions) -> CommandResult:
    """Run the command ``harness run``: run one pass, and write its results.

    Raises:
        UsageError: the results cannot be written to the output file.
        HarnessError: a spec, a file or an option is wrong.
        BackendError: the backend could not be run.
    """
    backend, _, interpreter = options.backend.partition("=")
    python, environment = process_of(options, backend, interpreter)
    spec = load_spec(options.spec, options.folders)
    user_arrays = gather(spec, options.sizes, parameters=options.parameters, inputs=options.inputs)
    settings = build(Settings, {**vars(options), "python": python, "environment": environment})
    if options.output is not None:
        try:
            kinds.check_place(options.output, kinds.ARRAYS_OF_RUN)
        except FileFault as fault:
            error_text = f"cannot write the results to {displayed(options.output)}: {fault.reason}"
            raise UsageError(error_text) from None
    result = run_once(spec, backend, user_arrays, options.want or WANTED, settings)
    arrays = arrays_of(result)
    if options.output is not None:
        _write_arrays(options.output, arrays)
    return CommandResult(document(result, arrays), text_of(result, arrays))


def arrays_of(result: PassResult) -> ArrayDict:
    """Return all results as one dictionary, by their names in a file: ``output.NAME``, ``loss``,
    ``gradient.NAME``."""
    groups: dict[str, Mapping[str, npt.ArrayLike]] = {
        "output": result.outputs,
        "state": result.state,
        "statistics": result.statistics,
        "metric": result.metrics,
        "gradient": result.gradients,
    }
    arrays = {
        f"{group}.{n}": np.asarray(a)
        for group, group_arrays in groups.items()
        for n, a in group_arrays.items()
    }
    return arrays if result.loss is None else {**arrays, "loss": np.asarray(result.loss)}


def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = kinds.RAN
    try:
        kinds.check_kind(path, kinds.ARRAYS_OF_RUN)
        write_whole(path, buffer.getvalue())
    except (OSError, FileFault) as error:
        raise UsageError(f"cannot write the results to {displayed(path)}: {why(error)}") from None


def document(result: PassResult, arrays: ArrayDict) -> dict[str, object]:
    """Return the content that ``harness run --json`` prints. ``arrays`` are the results by their
    names in a file."""
    loss = result.loss
    return {
        "loss": loss if loss is None or math.isfinite(loss) else str(loss),
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
        "paths": result.paths,
        "sizes": result.sizes,
    }


def text_of(result: PassResult, arrays: ArrayDict) -> str:
    """Return the text that ``harness run`` prints: sizes, the code that ran each layer, and a line
    for each array."""
    paths = ", ".join(f"{layer}: {path}" for layer, path in result.paths.items())
    lines = [f"at {', '.join(f'{n} {size}' for n, size in result.sizes.items())}; {paths}"]
    for name, array in arrays.items():
        # Show the value of a scalar, and the shape and dtype of an array.
        value_text = (
            f"{float(array):.9g}" if not array.shape else f"{list(array.shape)} {array.dtype}"
        )
        lines.append(f"{name} {value_text}")
    return "\n".join(lines)
