"""The options of ``export`` and ``import``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path

from harness.command import shared
from harness.command.declared import KEEP, option
from harness.command.ranges import CALL_SECONDS


@dataclass(frozen=True)
class Export:
    """An export that is asked for."""

    spec: str = shared.spec()
    weights: Path = option(MISSING, "File of weights that train or import wrote.")
    format_: str = option(MISSING, "torch, keras, jax or onnx.", word="--to", kind="format")
    output: Path | None = shared.output("File to write; MODEL_FORMAT here if left out.")
    seed: int = shared.seed("Seed of the inputs to check with.")
    folders: tuple[Path, ...] = shared.folders()
    python: str | None = shared.python()
    timeout: float = shared.timeout(CALL_SECONDS)
    force: bool = shared.force()


@dataclass(frozen=True)
class Import:
    """An import that is asked for."""

    spec: str = shared.spec()
    file: Path = option(MISSING, "File of the framework.", word="file")
    format_: str = option(MISSING, "torch, keras, jax or onnx.", word="--from", kind="format")
    weights: Path = option(MISSING, "File of weights to write.", section=KEEP)
    like: Path | None = option(None, "Weights whose sizes and characters these have too.")
    sizes: Mapping[str, int] = shared.sizes()
    folders: tuple[Path, ...] = shared.folders()
    python: str | None = shared.python()
    timeout: float = shared.timeout(CALL_SECONDS)
    force: bool = shared.force()


@dataclass(frozen=True, init=False, repr=False, eq=False)
class ExportOptions(Export):
    """Write SPEC with its weights as a framework's user expects it.

    The files are run by that framework alone, and kept if their outputs agree with the oracle's.

    Exit code 0: they agree; 1: they differ, and nothing was written; 2: wrong usage or a wrong
    file; 3: the format could not be run.
    """

    as_json: bool = shared.as_json()


@dataclass(frozen=True, init=False, repr=False, eq=False)
class ImportOptions(Import):
    """Make weights of SPEC from FILE, such as a state_dict or a .keras file.

    Exit code 0: done; 2: wrong usage or a wrong file; 3: the format could not be run.
    """

    as_json: bool = shared.as_json()
