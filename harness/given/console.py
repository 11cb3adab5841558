"""The command ``run``: what it prints and writes, and its exit codes."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.arrays import ArrayDict
from harness.command.declared import build
from harness.errors import UsageError
from harness.files import kinds
from harness.files.atomic import write_whole
from harness.files.user_file import FileFault, displayed, why
from harness.given.files import gather
from harness.given.options import Settings
from harness.given.run import WANTED, BackendError, PassResult, run_once
from harness.language.model import load_spec
from harness.output.printing import say, tell
from harness.worker.remote import with_trace


def run_run(name: str, options: Mapping[str, Any]) -> int:
    """Run once, print what came of it and write it; returns the exit code.

    Raises:
        UsageError: no results can be written to the place of the output.
        HarnessError: a spec, a file or an option is wrong.
    """
    target: Path | None = options["output"]
    spec = load_spec(name, options["folders"])
    given = gather(
        spec, options["sizes"], parameters=options["parameters"], inputs=options["inputs"]
    )
    settings = build(Settings, options)
    if target is not None:
        try:
            kinds.check_place(target, kinds.ARRAYS_OF_RUN)
        except FileFault as fault:
            what = f"cannot write the results to {displayed(target)}: {fault.reason}"
            raise UsageError(what) from None
    try:
        result = run_once(spec, options["backend"], given, options["want"] or WANTED, settings)
    except BackendError as error:
        tell(with_trace(str(error), error.traceback), error=True)
        return 3
    arrays = arrays_of(result)
    if target is not None:
        _write(target, arrays)
    if options["as_json"]:
        say(json.dumps(_document(result, arrays)))
    else:
        tell(text_of(result, arrays))
    return 0


def arrays_of(result: PassResult) -> ArrayDict:
    """All results by name, as the file has them: ``output.NAME``, ``loss``, ``gradient.NAME``."""
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


def _document(result: PassResult, arrays: ArrayDict) -> dict[str, object]:
    loss = result.loss
    return {
        "loss": loss if loss is None or math.isfinite(loss) else str(loss),
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
        "paths": result.paths,
        "sizes": result.sizes,
    }


def text_of(result: PassResult, arrays: ArrayDict) -> str:
    """What is printed: sizes and paths, then a line for each array."""
    paths = ", ".join(f"{layer}: {path}" for layer, path in result.paths.items())
    lines = [f"at {', '.join(f'{n} {size}' for n, size in result.sizes.items())}; {paths}"]
    for name, array in arrays.items():
        # One number is shown, of several their shape.
        shown = f"{float(array):.9g}" if not array.shape else f"{list(array.shape)} {array.dtype}"
        lines.append(f"{name} {shown}")
    return "\n".join(lines)
