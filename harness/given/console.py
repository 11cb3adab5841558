"""The command ``harness run``: its output, files and exit codes."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.arrays import ArrayDict
from harness.command.declared import build
from harness.command.options import process_of
from harness.command.outcome import CommandResult
from harness.errors import UsageError
from harness.files import kinds
from harness.files.atomic import write_whole
from harness.files.user_file import FileFault, displayed, why
from harness.given.files import gather
from harness.given.options import PassOptions, Settings
from harness.given.run import WANTED, PassResult, run_once
from harness.language.model import load_spec


def run_run(asked: PassOptions) -> CommandResult:
    """Run the command ``harness run``: run one pass, and write its results.

    Raises:
        UsageError: the results cannot be written to the output file.
        HarnessError: a spec, a file or an option is wrong.
        BackendError: the backend could not be run.
    """
    backend, _, own = asked.backend.partition("=")
    python, environment = process_of(asked, backend, own)
    spec = load_spec(asked.spec, asked.folders)
    given = gather(spec, asked.sizes, parameters=asked.parameters, inputs=asked.inputs)
    settings = build(Settings, {**vars(asked), "python": python, "environment": environment})
    if asked.output is not None:
        try:
            kinds.check_place(asked.output, kinds.ARRAYS_OF_RUN)
        except FileFault as fault:
            what = f"cannot write the results to {displayed(asked.output)}: {fault.reason}"
            raise UsageError(what) from None
    result = run_once(spec, backend, given, asked.want or WANTED, settings)
    arrays = arrays_of(result)
    if asked.output is not None:
        _write(asked.output, arrays)
    return CommandResult(document(result, arrays), text_of(result, arrays))


def arrays_of(result: PassResult) -> ArrayDict:
    """Return all results by their names in a file: ``output.NAME``, ``loss``, ``gradient.NAME``."""
    groups: dict[str, Mapping[str, npt.ArrayLike]] = {
        "output": result.outputs,
        "state": result.state,
        "statistics": result.statistics,
        "metric": result.metrics,
        "gradient": result.gradients,
    }
    found = {
        f"{group}.{n}": np.asarray(a) for group, given in groups.items() for n, a in given.items()
    }
    return found if result.loss is None else {**found, "loss": np.asarray(result.loss)}


def _write(path: Path, arrays: Mapping[str, Any]) -> None:
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
    """Return the content that ``--json`` prints for a pass."""
    loss = result.loss
    return {
        "loss": loss if loss is None or math.isfinite(loss) else str(loss),
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
        "paths": result.paths,
        "sizes": result.sizes,
    }


def text_of(result: PassResult, arrays: ArrayDict) -> str:
    """Return the text that is printed for a pass: sizes and the code that ran each layer, then a
    line for each array."""
    paths = ", ".join(f"{layer}: {path}" for layer, path in result.paths.items())
    lines = [f"at {', '.join(f'{n} {size}' for n, size in result.sizes.items())}; {paths}"]
    for name, array in arrays.items():
        # Show the value of a scalar, and the shape and dtype of an array.
        shown = f"{float(array):.9g}" if not array.shape else f"{list(array.shape)} {array.dtype}"
        lines.append(f"{name} {shown}")
    return "\n".join(lines)
