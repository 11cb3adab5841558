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
    from harness.oracle.given import Numbers as Arrays
    from harness.oracle.given import Source
    from harness.program.ir import Phase


@dataclass(frozen=True)
class Settings:
    """How a pass is run: on what, in what, for how long. ``python`` is another interpreter."""

    dtype: str = shared.dtype("float64", "float32")
    device: str = shared.device()
    path: str = shared.path("native")
    phase: Phase = option("training", "training or inference.", kind="phase", shown=True)
    seed: int = shared.seed("Seed of the initial parameters.")
    timeout: float = shared.timeout(CELL_SECONDS, "pass")
    python: str | None = shared.python()
    environment: Mapping[str, str] = shared.variables()


@dataclass(frozen=True, init=False, repr=False, eq=False)
class PassOptions(Settings):
    """Run SPEC once on numbers of your own, and write what came of it. Nothing is judged.

    Exit code 0: done; 2: wrong usage or a wrong file; 3: the backend could not be run.
    """

    spec: str = shared.spec()
    backend: str = shared.backend(help_="The backend that does it, or oracle: numpy in float64.")
    parameters: Source = option(
        None,
        "Parameters (.safetensors); initial ones if left out.",
        word="--weights",
        python="Parameters by name, moving statistics with them or not, or a .safetensors file; "
        "the spec's initial values, drawn from ``seed``, if left out.",
    )
    inputs: Source = option(
        None,
        "A batch (.npz): arrays NAME, and target.NAME and state.NAME.",
        python="Arrays [batch, time, ...] as the spec declares them, indices as integers; or an "
        ".npz file with arrays NAME, target.NAME and state.NAME.",
    )
    state: Arrays = option(None, "The state before the batch; zeros if left out.", word="")
    targets: Arrays = option(None, "What the loss compares with.", word="")
    want: tuple[str, ...] = option(
        ("outputs", "loss", "gradients"),
        "outputs, loss or gradients; all if left out.",
        kind="want",
        python="outputs (with the new state and statistics), loss (with metrics) and gradients (of "
        "the loss), or one of them.",
    )
    output: Path | None = shared.output("File (.npz) to write the results to.", python=None)
    folders: tuple[Path, ...] = shared.folders()
    sizes: Mapping[str, int] = shared.sizes()
    as_json: bool = shared.as_json()
