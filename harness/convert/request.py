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
    """The options of an export."""

    spec: str = shared.spec()
    weights: Path = option(MISSING, "Weights file that train or import wrote.")
    format_: str = option(
        MISSING, "Format to write: torch, keras, jax or onnx.", word="--to", kind="format"
    )
    output: Path | None = shared.output(
        "File to write. Default: MODEL_FORMAT in the current folder."
    )
    seed: int = shared.seed("Seed of the random test inputs.")
    folders: tuple[Path, ...] = shared.folders()
    python: str | None = shared.python()
    timeout: float = shared.timeout(CALL_SECONDS)
    force: bool = shared.force()


@dataclass(frozen=True)
class Import:
    """The options of an import."""

    spec: str = shared.spec()
    file: Path = option(MISSING, "File of the framework.", word="file")
    format_: str = option(
        MISSING, "Format of FILE: torch, keras, jax or onnx.", word="--from", kind="format"
    )
    weights: Path = option(MISSING, "Weights file to write.", section=KEEP)
    like: Path | None = option(None, "Weights file from which to copy sizes and characters.")
    sizes: Mapping[str, int] = shared.sizes()
    folders: tuple[Path, ...] = shared.folders()
    python: str | None = shared.python()
    timeout: float = shared.timeout(CALL_SECONDS)
    force: bool = shared.force()


@dataclass(frozen=True, init=False, repr=False, eq=False)
class ExportOptions(Export):
    """Write SPEC and its weights in a framework's usual format.

    The framework runs the written model. The files are kept if the outputs agree with the oracle.

    The exit code is 0 if the outputs agree, 1 if they differ (no file is written), 2 for wrong
    usage or a wrong file, and 3 if the framework could not run.
    """

    as_json: bool = shared.as_json()


@dataclass(frozen=True, init=False, repr=False, eq=False)
class ImportOptions(Import):
    """Read weights of SPEC from FILE, such as a state_dict or a .keras file.

    The exit code is 0 for success, 2 for wrong usage or a wrong file, and 3 if the framework could
    not run.
    """

    as_json: bool = shared.as_json()
