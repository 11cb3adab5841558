"""Options of ``run``. The module imports nothing slow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.command import shared
from harness.command.declared import option
from harness.command.ranges import CELL_SECONDS

if TYPE_CHECKING:
    from harness.oracle.user_arrays import Numbers as Arrays
    from harness.oracle.user_arrays import Source
    from harness.program.ir import Phase


@dataclass(frozen=True)
class Settings:
    """Options of a pass: dtype, device, path and limits. ``python`` is the path of a different
    Python interpreter."""

    dtype: str = shared.dtype("float64", "float32")
    device: str = shared.device()
    path: str = shared.path("native")
    phase: Phase = option(
        "training", "Phase of the model: training or inference.", kind="phase", shown=True
    )
    seed: int = shared.seed("Seed of the initial parameters.")
    timeout: float = shared.timeout(CELL_SECONDS, "pass")
    python: str | None = shared.python()
    environment: Mapping[str, str] = shared.variables()


@dataclass(frozen=True, init=False, repr=False, eq=False)
class PassOptions(Settings):
    """Run SPEC once on your own arrays, and write the results. Nothing is compared.

    The exit code is 0 for success, 2 for wrong usage or a wrong file, and 3 if the backend could
    not run.
    """

    spec: str = shared.spec()
    backend: str = shared.backend(help_="Backend to run, or oracle, which is numpy in float64.")
    parameters: Source = option(
        None,
        "Parameters (.safetensors). Default: initial values.",
        word="--weights",
        python="Parameters by name (moving statistics may be included), or a .safetensors file. "
        "Default: the spec's initial values, drawn with ``seed``.",
    )
    inputs: Source = option(
        None,
        "Batch (.npz) with an array for each input NAME, target.NAME and state.NAME.",
        python="Arrays [batch, time, ...] with the spec's shapes, and integers for indices. Or an "
        ".npz file with arrays NAME, target.NAME and state.NAME.",
    )
    state: Arrays = option(
        None, "State before the batch. Default: the spec's initial state.", word=""
    )
    targets: Arrays = option(None, "Targets of the loss.", word="")
    want: tuple[str, ...] = option(
        ("outputs", "loss", "gradients"),
        "Results to compute: outputs, loss or gradients. Default: all.",
        kind="want",
        python="Results to compute: outputs (with the new state and statistics), loss (with "
        "metrics), gradients (of the loss).",
    )
    output: Path | None = shared.output("Write the results to this .npz file.", python=None)
    folders: tuple[Path, ...] = shared.folders()
    sizes: Mapping[str, int] = shared.sizes()
    as_json: bool = shared.as_json()
