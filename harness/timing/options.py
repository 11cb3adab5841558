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
    """Options of a timing. If ``specs`` is empty, all models of Lesson 6 are timed; if ``backends``
    is empty, all installed backends; if ``times`` is empty, the sequence length of the spec's data.
    """

    specs: tuple[str, ...] = shared.specs()
    backends: tuple[str, ...] = shared.backends()
    device: str = shared.device()
    dtype: str = shared.dtype("float32", "tf32, bfloat16, float16 and float64")
    batches: tuple[int, ...] = option(
        (DEFAULT_BATCH,), "Batch sizes.", word="--batch", metavar="N", shown=True
    )
    times: tuple[int, ...] = option(
        (), "Sequence lengths. Default: the spec's length.", word="--time", metavar="T"
    )
    sizes: Mapping[str, tuple[int, ...]] = shared.sizes(metavar="NAME=N,N")
    modes: tuple[str, ...] = option(
        MODES,
        "Modes to time: forward pass only, or whole training steps.",
        word="--mode",
        kind="mode",
        shown=True,
    )
    path: str = shared.path(
        "fastest", shared.COMPILED, "or fastest (the fastest path with right results)"
    )
    rounds: int = shared.rounds()
    quick: bool = option(
        False,
        "Give rough speeds; two backends take half a minute. By default, time training steps of "
        "one model on the path native, with 2 rounds.",
        shown=True,
    )
    tune: bool = option(False, "Also try environment variables that are known to increase speed.")
    seed: int = shared.seed("Seed of the random data and of the order of the backends.")
    folders: tuple[Path, ...] = shared.folders()
    shard: Shard | None = shared.shard()
    on: str | None = shared.on()
    threads: int = shared.threads(
        help_="Number of threads of each backend. Default: the number of cores."
    )
    pythons: Mapping[str, str] = shared.pythons()
    environment: Mapping[str, Mapping[str, str]] = shared.environment()
    timeout: float = shared.timeout(CALL_SECONDS)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class BenchOptions(TimingOptions):
    """Time backends side by side. Default: all installed backends, on all of Lesson 6.

    Lesson 6 is twelve small character models of a fast.ai notebook, which ship as lesson6/NAME

    A cell gets a speed only if its results agree with the oracle, and if the backend proves that it
    did all of the work. For a quick look, use 'harness bench --quick' or 'harness bench SPEC
    --quick'.

    The exit code is 0 if every cell has a speed, 1 if a cell has none or --baseline finds a
    regression, 2 for wrong usage or a wrong spec, and 3 if a backend could not run.
    """

    html: Path | None = shared.html()
    markdown: Path | None = shared.markdown()
    records: Path | None = option(
        None,
        "Write the results to this file. An existing file is replaced.",
        section=KEEP,
        python=None,
    )
    relative_to: str | None = option(
        None,
        "Also print speeds as multiples of this backend's speed.",
        section=PRINT,
        kind="backend",
        metavar="BACKEND",
        python=None,
    )
    baseline: Path | None = option(
        None, "Compare the results with this older file.", section=PRINT, python=None
    )
    threshold: float = shared.threshold(python=None)
    as_json: bool = shared.as_json()
    print_markdown: bool = shared.print_markdown()
    verbose: bool = shared.verbose()
