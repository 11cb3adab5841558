"""The options of ``bench``. This module imports nothing slow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.command import shared
from harness.command.declared import KEEP, PRINT, option
from harness.command.ranges import CALL_SECONDS
from harness.runs.shards import Shard

MODES = ("forward", "train")
DEFAULT_BATCH = 64


@dataclass(frozen=True, init=False, repr=False, eq=False)
class TimingOptions:
    """Options of a timing. Empty ``specs`` mean all of Lesson 6, empty ``backends`` all installed
    backends, and empty ``times`` the sequence length of the spec's data."""

    specs: tuple[str, ...] = shared.specs()
    backends: tuple[str, ...] = shared.backends()
    device: str = shared.device()
    dtype: str = shared.dtype("float32", "tf32, bfloat16, float16 and float64")
    batches: tuple[int, ...] = option(
        (DEFAULT_BATCH,), "Batch sizes.", word="--batch", metavar="N", shown=True
    )
    times: tuple[int, ...] = option(
        (), "Lengths of a sequence; the spec's own if left out.", word="--time", metavar="T"
    )
    sizes: Mapping[str, tuple[int, ...]] = shared.sizes(metavar="NAME=N,N")
    modes: tuple[str, ...] = option(MODES, "What to time.", word="--mode", kind="mode", shown=True)
    path: str = shared.path(
        "fastest", shared.COMPILED, "or whichever is right and fastest (fastest)"
    )
    rounds: int = shared.rounds()
    tune: bool = option(False, "Also try environment settings that are known to help.")
    seed: int = shared.seed("Seed of the numbers and of the order.")
    folders: tuple[Path, ...] = shared.folders()
    shard: Shard | None = shared.shard()
    on: str | None = shared.on()
    threads: int = shared.threads(help_="Threads of each backend; all cores if left out.")
    pythons: Mapping[str, str] = shared.pythons()
    environment: Mapping[str, Mapping[str, str]] = shared.environment()
    timeout: float = shared.timeout(CALL_SECONDS)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class BenchOptions(TimingOptions):
    """Time backends side by side: all that are installed, on all of Lesson 6, if left out.

    Lesson 6 is the twelve small character models of fast.ai's notebook that ship as lesson6/NAME

    A cell whose results differ from the oracle's, or whose backend does not prove that it did the
    work, gets no speed. A quick look: 'harness bench SPEC --path native --rounds 2'.

    Exit code 0: all have a speed; 1: one was refused, or --baseline found a regression; 2: wrong
    usage or a wrong spec; 3: a backend could not be run.
    """

    html: Path | None = shared.html()
    markdown: Path | None = shared.markdown()
    records: Path | None = option(
        None, "File to keep the results in; replaced.", section=KEEP, python=None
    )
    relative_to: str | None = option(
        None,
        "Also print how many times as fast as this one each is.",
        section=PRINT,
        kind="backend",
        metavar="BACKEND",
        python=None,
    )
    baseline: Path | None = option(
        None, "Compare with the results in this file.", section=PRINT, python=None
    )
    threshold: float = shared.threshold(python=None)
    as_json: bool = shared.as_json()
    print_markdown: bool = shared.print_markdown()
    verbose: bool = shared.verbose()
