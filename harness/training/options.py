"""The options of ``train``. This module imports nothing slow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.command import shared
from harness.command.declared import KEEP, option
from harness.command.ranges import BATCH, CALL_SECONDS, EPOCHS, EVERY, HELD_OUT


@dataclass(frozen=True, init=False, repr=False, eq=False)
class TrainingOptions:
    """Options of a training. If ``epochs`` or ``batch`` is None, the spec's value is used."""

    spec: str = shared.spec()
    backend: str = shared.backend()
    text: str | None = option(
        None,
        "Text to train on: builtin (Python's own documentation, if left out), nietzsche (the "
        "notebook's), or a file.",
        kind="text",
    )
    data: Path | None = option(
        None, "npz file of a SPEC that is trained on arrays, in place of its own."
    )
    encoding: str = option("utf-8", "Encoding of a text file.", kind="encoding", shown=True)
    epochs: int | None = option(None, "The spec's own phases if left out.", allowed=EPOCHS)
    batch: int | None = option(None, "Rows of a step; the spec's own if left out.", allowed=BATCH)
    held_out: float = option(
        0.05, "Share of the text to test on, its end.", allowed=HELD_OUT, shown=True
    )
    proof: bool = option(
        True,
        "Do not hold the first steps against the oracle.",
        word="--no-proof",
        python="Hold the first steps against the oracle.",
    )
    device: str = shared.device()
    dtype: str = shared.dtype("float32", "float64, bfloat16, float16 and tf32")
    path: str = shared.path(
        "derived", shared.COMPILED, "or whichever is right and fastest (fastest)"
    )
    seed: int = shared.seed("Seed of the first weights and of the order.")
    sizes: Mapping[str, int] = shared.sizes()
    folders: tuple[Path, ...] = shared.folders()
    threads: int = shared.threads(help_="Threads of the backend; all cores if left out.")
    python: str | None = shared.python()
    environment: Mapping[str, str] = shared.variables()
    timeout: float = shared.timeout(CALL_SECONDS)
    every: int = option(1000, "Steps between checkpoints.", section=KEEP, allowed=EVERY, shown=True)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class TrainOptions(TrainingOptions):
    """Train SPEC on a text or on arrays, as the spec's own phases say.

    Exit code 0: done; 1: the loss became NaN or infinite, the last good weights are kept; 2: wrong
    usage or a wrong file; 3: the backend failed; 130: interrupted.
    """

    weights: Path | None = option(
        None, "File of weights to write, with checkpoints beside it.", section=KEEP
    )
    resume: bool = option(
        False, "Continue from the last checkpoint, if there is one.", section=KEEP
    )
    force: bool = shared.force()
    as_json: bool = shared.as_json()
