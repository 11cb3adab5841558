"""The work of the commands ``export`` and ``import``."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.arrays import Arrays
from harness.convert import formats, weights
from harness.convert.agreement import Agreement, Batch, agreement, draw_batches
from harness.convert.archive import FLOATS
from harness.convert.request import Export, Import
from harness.convert.standalone import compare_alone
from harness.convert.weights import Weights, WeightsError
from harness.errors import CouldNotRun, UsageError
from harness.files import kinds
from harness.files.atomic import staging, sync_folder
from harness.files.kinds import FileKind
from harness.files.lock import hold_lock
from harness.files.user_file import MAX_WEIGHTS, FileFault, check_regular, displayed
from harness.language.model import Spec, fingerprint, load_spec
from harness.program.serial import encode
from harness.program.signature import index_names
from harness.runtime import plugins
from harness.worker.answers import Forms
from harness.worker.process import exit_cause
from harness.worker.programs import run_program
from harness.worker.remote import WorkerFault, call_or_raise
from harness.worker.worker import Worker


class FormatFault(CouldNotRun):
    """Failure of a format's process: an exception, a crash or a timeout."""


@dataclass(frozen=True)
class Exporting:
    """The result of an export. ``versions`` has the versions of the libraries that wrote and ran
    the files, by name.

    If the outputs or gradients differ from the oracle's, ``files`` is empty, and ``doubt`` is the
    format's text about the dtype (:meth:`Format.doubt`). ``gradients`` is None if no gradients were
    compared.
    """

    spec: str
    dtype: str
    agreement: Agreement
    files: Sequence[Path]
    versions: Mapping[str, str]
    doubt: str = ""
    gradients: Agreement | None = None

    @property
    def agrees(self) -> bool:
        """True if everything that was compared agrees."""
        return self.agreement.agrees and (self.gradients is None or self.gradients.agrees)


# A function that receives the name of each call to a format's process.
Tell = Callable[[str], None]


def ignore_call(verb: str) -> None:
    """Do nothing. This function is the default of ``tell``, a function that shows which call of an
    export or import is running."""


class Caller:
    """The worker process of one format, e.g. of ONNX. If the process fails, an error with a message
    for the user is raised."""

    def __init__(
        self,
        name: str,
        python: str | None,
        timeout: float,
        environment: Mapping[str, str] | None = None,
        tell: Tell = ignore_call,
    ) -> None:
        self.name, self.timeout, self.tell = name, timeout, tell
        self.python, environment = python or sys.executable, environment or {}
        self.worker = Worker(formats.launch(name, python=self.python, environment=environment))

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.close()

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the libraries that wrote and ran the files."""
        return dict((self.worker.hello or {}).get("versions", {}))

    def call(self, verb: str, **payload: Any) -> Any:
        """Call the method ``verb`` of the format in its process, with ``payload`` as arguments.
        Return the answer.

        Raise :class:`UsageError` or :class:`FormatFault` if the call fails.
        """
        self.tell(verb)
        try:
            return call_or_raise(self.worker, FORMS, verb, payload, self.timeout).value
        except WorkerFault as fault:
            if (error := fault.users_error) is not None:
                raise UsageError(error) from None
            outcome, message = fault.outcome, f"format {self.name!r}: {fault.outcome.cause}"
            # This message already contains the name of the format.
            if outcome.kind == formats.BrokenFormat.__name__:
                message = outcome.message
            raise FormatFault(message, fault.traceback) from None


FORMS = Forms(formats.FormatService)


def export(request: Export, tell: Tell = ignore_call, batches: Sequence[Batch] = ()) -> Exporting:
    """Write the files of a model, and run the exported model with its framework. Keep the files if
    the model's outputs agree with the oracle's. ``tell`` is called with the name of each call to
    the format.

    With ``batches`` (of :func:`draw_batches`), exported source code runs in a process of its own
    without the harness, and its gradients are compared too.

    Raises:
        HarnessError: the spec, the weights or the target is wrong, or the format is unknown.
        FormatFault: the format could not be run.
    """
    spec = load_spec(request.spec, request.folders)
    weights_ = weights.load(request.weights)
    _check(weights_, spec, request.weights)
    exported = exported_of(spec, weights_)
    # Before a framework starts. A name that is too long is no folder; Path.is_dir would raise.
    if request.output is not None and not os.path.isdir(request.output):
        _refuse_export([request.output], request.force)
    with Caller(request.format_, request.python, request.timeout, tell=tell) as caller:
        path = _target(request, spec, caller.call("suffix"))
        with staging(path) as folder:
            new = folder / path.name
            files = [
                Path(name)
                for name in caller.call("write", exported=exported.payload(), path=str(new))
            ]
            _label_exports(files)
            targets = [path.parent / relative_output(folder, file, request) for file in files]
            _refuse_export(targets, request.force)

            if batches and caller.call("runs_alone"):
                compared, gradients = _compare_alone(caller, exported, new, batches)
            else:
                batches = batches or draw_batches(spec, weights_, request.seed)
                compared, gradients = _compare_outputs(caller, exported, new, batches), None
            versions = caller.versions
            result = Exporting(spec.name, exported.dtype, compared, [], versions, "", gradients)
            if result.agrees:
                _move_files(files, targets)
                return replace(result, files=targets)
        return replace(result, doubt=caller.call("doubt", dtype=exported.dtype))


def _compare_outputs(
    caller: Caller, exported: formats.Exported, path: Path, batches: Sequence[Batch]
) -> Agreement:
    """Run an export in the format's process, and compare its outputs with the oracle's."""

    def outputs(inputs: Arrays, state: Arrays) -> Any:
        return caller.call("outputs", path=str(path), inputs=inputs, state=state)

    return agreement(batches, exported.dtype, outputs)


def _compare_alone(
    caller: Caller, exported: formats.Exported, path: Path, batches: Sequence[Batch]
) -> tuple[Agreement, Agreement | None]:
    """Run an export in a process of its own, and compare its outputs and gradients."""
    payload = exported.payload()

    def write_script(gradients: Arrays) -> formats.Script:
        arguments = {"exported": payload, "path": str(path), "gradients": gradients}
        return formats.Script(**caller.call("script", **arguments))

    run = run_alone(caller.name, caller.python, caller.timeout)
    compared = compare_alone(write_script, exported, batches, path.parent, run)
    return compared.outputs, compared.gradients


def run_alone(name: str, python: str | None, timeout: float) -> Callable[[Path], str]:
    """Return a function that runs a Python file with the framework ``name``, and returns what the
    file printed. If a signal ended the process, or its time ran out, the last line says so."""
    python = shutil.which(python or sys.executable) or sys.executable
    variables = plugins.environment(name) if name in plugins.available() else {}

    def run(file: Path) -> str:
        command = [python, "-P", str(file)]
        ended = run_program(command, {**variables, **os.environ}, timeout, None)
        crashed = ended.code is not None and ended.code < 0
        cause = f"the process ended with {exit_cause(ended.code, '')}" if crashed else ended.cause
        return f"{ended.printed}\n{cause}".strip()

    return run


def exported_of(spec: Spec, weights_: Weights) -> formats.Exported:
    """Return the weights together with the model's programs at the sizes of the weights.

    Raises :class:`UsageError` if the arrays have different dtypes, or a dtype other than float32
    and float64.
    """
    arrays = {**weights_.parameters, **weights_.statistics}
    integers = index_names(spec.programs["training"])
    dtypes = {str(array.dtype) for name, array in arrays.items() if name not in integers}
    if len(dtypes) > 1:
        raise UsageError(
            f"the weights are {' and '.join(sorted(dtypes))}; all must have the same dtype"
        )
    if not dtypes <= set(FLOATS):
        raise UsageError(f"the weights are {dtypes.pop()}; allowed are float32 and float64")
    return formats.Exported(
        spec.name,
        spec.program("training", **weights_.sizes),
        spec.program("inference", **weights_.sizes),
        weights_.parameters,
        weights_.statistics,
        weights_.vocabulary,
        {"fingerprint": weights_.fingerprint, "history": dict(weights_.history)},
    )


def import_(request: Import, tell: Tell = ignore_call) -> Weights:
    """Read a framework's file, write its arrays as weights of the harness, and return them.
    ``tell`` is called with the name of each call to the format.

    Raises:
        UsageError: the file or the target is wrong, or the format is unknown.
        HarnessError: the spec or the weights are wrong.
        FormatFault: the format could not be run.
    """
    spec = load_spec(request.spec, request.folders)
    like = weights.load(request.like) if request.like is not None else None
    if like is not None:
        weights.check(like, spec)
    sizes = {**(like.sizes if like else {}), **request.sizes}
    program = formats.fitted(spec.program("training", **sizes), spec.program("inference", **sizes))
    try:
        check_regular(request.file, MAX_WEIGHTS, "weights")
    except FileFault as fault:
        raise UsageError(f"cannot import {fault}") from None
    _refuse([request.weights], kinds.WEIGHTS, request.force)
    caller = Caller(request.format_, request.python, request.timeout, tell=tell)
    with hold_lock(request.weights), caller:
        arrays = caller.call("read", path=str(request.file), training=encode(program))
        source = {"format": request.format_, "file": displayed(request.file.name)}
        imported = Weights(
            spec.name,
            fingerprint(spec),
            dict(program.sizes),
            arrays["parameters"],
            arrays["statistics"],
            like.vocabulary if like is not None else (),
            {"imported": source, "versions": caller.versions},
        )
        _check(imported, spec, request.file)
        weights.save(request.weights, imported)
    return imported


def _check(weights_: Weights, spec: Spec, file: Path) -> None:
    try:
        weights.check(weights_, spec)
    except WeightsError as error:
        raise WeightsError(f"{displayed(file)}: {error}") from None


def _target(request: Export, spec: Spec, suffix: str) -> Path:
    if request.output is not None and request.output.suffix == suffix:
        return request.output
    if request.output is not None and not os.path.isdir(request.output):
        raise UsageError(
            f"a file of format {request.format_!r} must end in {suffix}, found {request.output}"
        )
    # The name contains the format, because several formats would write a module NAME.py.
    folder = request.output or Path()
    path = folder / f"{spec.name.rpartition('/')[2]}_{request.format_}{suffix}"
    _refuse_export([path], request.force)
    return path


def _check_module(path: Path) -> None:
    """Raise :class:`UsageError` if a Python module written at this path would hide an installed
    module."""
    if path.suffix != ".py":
        return
    hides = path.stem in sys.stdlib_module_names
    if not hides and path.stem.isidentifier():
        module_spec = importlib.util.find_spec(path.stem)
        hides = module_spec is not None and module_spec.origin not in (None, os.path.abspath(path))
    if hides:
        raise UsageError(
            f"{displayed(path)} would hide the installed module {path.stem!r} from every program "
            "in this folder: choose another name"
        )


def relative_output(folder: Path, file: Path, request: Export) -> Path:
    """Return the path of a file that a format wrote, relative to ``folder``.

    Raises:
        FormatFault: the file is missing, or in a different folder.
    """
    if file.parent != folder or file.is_symlink() or not file.is_file():
        raise FormatFault(
            f"format {request.format_!r}: it reported to have written {file}, but that is not a "
            "file in its folder"
        )
    return file.relative_to(folder)


def _refuse(files: Sequence[Path], kind: FileKind, force: bool) -> None:
    """Raise :class:`UsageError` if one of the files cannot be written, or if it exists and
    ``force`` is false."""
    for file in files:
        if kinds.check_output(file, kind) and not force:
            raise UsageError(f"{displayed(file)} already exists: --force overwrites it")


def _refuse_export(files: Sequence[Path], force: bool) -> None:
    _refuse(files, kinds.EXPORT, force)
    for file in files:
        _check_module(file)


def _label_exports(files: Sequence[Path]) -> None:
    """Label files as exported files, so that later exports may replace them."""
    try:
        for file in files:
            kinds.mark_export(file)
    except OSError as error:
        raise UsageError(f"cannot write {displayed(file)}: {error.strerror}") from None


def _move_files(files: Sequence[Path], targets: Sequence[Path]) -> None:
    try:
        for file, target in zip(files, targets, strict=True):
            os.replace(file, target)
        sync_folder(targets[0].parent)
    except OSError as error:
        raise UsageError(f"cannot write {displayed(target)}: {error.strerror}") from None
