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
    """Options of a training. If ``epochs`` or ``batch`` (the batch size) is None, the spec's value
    is used."""

    spec: str = shared.spec()
    backend: str = shared.backend()
    text: str | None = option(
        None,
        "Text to train on: builtin (from Python's documentation; the default), nietzsche (the text "
        "of Lesson 6), or a file.",
        kind="text",
    )
    data: Path | None = option(
        None, "Train on the arrays of this .npz file, instead of the spec's data."
    )
    encoding: str = option("utf-8", "Encoding of a text file.", kind="encoding", shown=True)
    epochs: int | None = option(
        None, "Number of epochs. Default: the phases of the spec.", allowed=EPOCHS
    )
    batch: int | None = option(None, "Batch size. Default: the spec's batch size.", allowed=BATCH)
    held_out: float = option(
        0.05,
        "Share of the text, at its end, that is held out for testing.",
        allowed=HELD_OUT,
        shown=True,
    )
    proof: bool = option(
        True,
        "Do not compare the first steps with the oracle.",
        word="--no-proof",
        python="Compare the first steps with the oracle.",
    )
    device: str = shared.device()
    dtype: str = shared.dtype("float32", "float64, bfloat16, float16 and tf32")
    path: str = shared.path(
        "derived", shared.COMPILED, "or fastest (the fastest path with right results)"
    )
    seed: int = shared.seed("Seed of the initial weights and of the order of the data.")
    sizes: Mapping[str, int] = shared.sizes()
    folders: tuple[Path, ...] = shared.folders()
    threads: int = shared.threads(help_="Number of threads. Default: the number of cores.")
    python: str | None = shared.python()
    environment: Mapping[str, str] = shared.variables()
    timeout: float = shared.timeout(CALL_SECONDS)
    every: int = option(
        1000, "Number of steps between checkpoints.", section=KEEP, allowed=EVERY, shown=True
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class TrainOptions(TrainingOptions):
    """Train SPEC on a text or on arrays, in the phases that the spec declares.

    The exit code is 0 for success, 1 if the loss became NaN or infinite (the last good weights are
    kept), 2 for wrong usage or a wrong file, 3 if the backend failed, and 130 if interrupted.
    """

    weights: Path | None = option(
        None, "Weights file to write. Checkpoints are written to the same folder.", section=KEEP
    )
    resume: bool = option(False, "Continue from the last checkpoint, if one exists.", section=KEEP)
    force: bool = shared.force()
    as_json: bool = shared.as_json()
