"""The commands ``export`` and ``import``. What they need is imported when they are run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.command import shared
from harness.command.declared import KEEP, build, option, takes
from harness.command.interrupts import stoppable
from harness.command.options import numbers, process_of
from harness.command.ranges import CALL_SECONDS


@dataclass(init=False, repr=False, eq=False)
class ConvertOptions:
    """Options of ``export`` and ``import``."""

    spec: str = shared.spec()
    folders: tuple[Path, ...] = shared.folders()
    python: str | None = shared.python()
    timeout: float = shared.timeout(CALL_SECONDS)
    force: bool = shared.force()
    as_json: bool = shared.as_json()


@dataclass(init=False, repr=False, eq=False)
class ExportOptions(ConvertOptions):
    """Options of ``export``."""

    weights: Path = option(MISSING, "File of weights that train or import wrote.")
    format_: str = option(MISSING, "torch, keras, jax or onnx.", word="--to", kind="format")
    seed: int = shared.seed("Seed of the inputs to check with.")
    output: Path | None = shared.output("File to write; MODEL_FORMAT here if left out.")


@dataclass(init=False, repr=False, eq=False)
class ImportOptions(ConvertOptions):
    """Options of ``import``."""

    file: Path = option(MISSING, "File of the framework.", word="file")
    format_: str = option(MISSING, "torch, keras, jax or onnx.", word="--from", kind="format")
    like: Path | None = option(None, "Weights whose sizes and characters these have too.")
    sizes: Mapping[str, int] = shared.sizes()
    weights: Path = option(MISSING, "File of weights to write.", section=KEEP)


@takes(ExportOptions)
def export(spec: str, **given: Any) -> None:
    """Write SPEC with its weights as a framework's user expects it.

    The files are run by that framework alone, and kept if their outputs agree with the oracle's.

    Exit code 0: they agree; 1: they differ, and nothing was written; 2: wrong usage or a wrong
    file; 3: the format could not be run.
    """
    from harness.convert.console import run_export
    from harness.convert.request import Export

    python, _ = process_of({"python": given["python"]}, given["format_"], sys.executable)
    request = build(Export, {**given, "spec": spec, "python": python})
    sys.exit(stoppable(partial(run_export, request, given["as_json"])))


@takes(ImportOptions)
def import_(spec: str, file: Path, **given: Any) -> None:
    """Make weights of SPEC from FILE, such as a state_dict or a .keras file.

    Exit code 0: done; 2: wrong usage or a wrong file; 3: the format could not be run.
    """
    from harness.convert.console import run_import
    from harness.convert.request import Import

    python, _ = process_of({"python": given["python"]}, given["format_"], sys.executable)
    sizes = numbers(given["sizes"])
    request = build(Import, {**given, "spec": spec, "file": file, "sizes": sizes, "python": python})
    sys.exit(stoppable(partial(run_import, request, given["as_json"])))
