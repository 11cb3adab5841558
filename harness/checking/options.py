"""The options of ``check``, as :mod:`harness.command.declared` has them.

Imports nothing that takes time: the command line must start at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.command import shared
from harness.command.declared import HOW, KEEP, PRINT, option, options_of
from harness.command.ranges import CELL_SECONDS, JOBS, MEMORY_MIB, REPEAT, TIMEOUT
from harness.runs.shards import Shard

if TYPE_CHECKING:
    from harness.oracle.given import Numbers as Arrays
    from harness.oracle.given import Source

# The dtypes that are checked if none are asked for.
DTYPES = ("float64", "float32")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class CellOptions:
    """Options that select the cells and say how each is run. Empty ``specs`` mean all of Lesson 6,
    empty ``backends`` all that are installed."""

    specs: tuple[str, ...] = shared.specs(suite="--harness-spec")
    backends: tuple[str, ...] = shared.backends(suite="--backend")
    dtypes: tuple[str, ...] = option(
        DTYPES,
        "float64 or float32, both if left out; bfloat16 or float16.",
        word="--dtype",
        kind="dtype",
        suite="--dtype",
    )
    paths: tuple[str, ...] = option(
        ("native",),
        "Paths of execution: the framework's own layers where it has them (native), its gradient "
        "of the equations (equations), the derived gradient (derived), or all of them (all).",
        word="--path",
        kind="path",
        shown=True,
        suite="--harness-path",
    )
    device: str = shared.device(suite="--device")
    checks: tuple[str, ...] = shared.checks(decides=True)
    thorough: bool = option(
        False,
        "Run the expensive checks too (docs/method.md).",
        decides=True,
        suite="--harness-thorough",
    )
    repeat: int = option(
        0,
        "Repeat a pass this many times (soak test).",
        allowed=REPEAT,
        decides=True,
        suite="--harness-repeat",
    )
    sizes: Mapping[str, int] = shared.sizes(decides=True)
    seed: int = shared.seed("Seed of the numbers to check with.", decides=True)
    deterministic: bool = option(
        False,
        "Have every framework give the same bits for the same call, on a GPU too.",
        decides=True,
        suite="--harness-deterministic",
    )
    folders: tuple[Path, ...] = shared.folders(suite="--harness-specs")
    pythons: Mapping[str, str] = shared.pythons()
    environment: Mapping[str, Mapping[str, str]] = shared.environment()
    timeout: float = shared.timeout(CELL_SECONDS, "cell", suite="--harness-timeout")
    start_timeout: float | None = option(
        None,
        "Seconds that a backend may take to start; 300, or HARNESS_START_TIMEOUT, if left out.",
        section=HOW,
        allowed=TIMEOUT,
        suite="--harness-start-timeout",
    )
    memory_limit: int | None = option(
        None,
        "Resident MiB that a worker may take.",
        section=HOW,
        word="--memory",
        allowed=MEMORY_MIB,
        unit=2**20,
        suite="--harness-memory",
        python="Resident bytes that a worker may take.",
    )


# Those that decide the result of a cell.
DECIDING = tuple(one for one in options_of(CellOptions) if one.decides)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class RunOptions(CellOptions):
    """How the cells are run as a whole, and what is kept of them."""

    shard: Shard | None = shared.shard()
    on: str | None = shared.on()
    jobs: int = option(
        0,
        "Backends to run at the same time; 0, or left out: as many as there are cores.",
        section=HOW,
        allowed=JOBS,
    )
    fail_fast: bool = option(False, "Begin no further cell after the first failure.", section=HOW)
    records: Path | None = option(None, "File to keep the results in; appended to.", section=KEEP)
    resume: bool = option(False, "Skip the cells that --records holds already.", section=KEEP)
    history: Path | None = option(
        None, "Folder of records: run only what they do not answer.", section=KEEP, kind="folder"
    )
    fresh: bool = option(False, "Run all, also what --history answers.", section=KEEP)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class CheckOptions(RunOptions):
    """All options of ``check``: also what it prints, and what is held against the oracle."""

    quick: bool = option(
        False,
        "Answer in seconds: three models, float32, the check 'values', unless others are asked "
        "for.",
    )
    weights: Source = option(
        None,
        "Parameters (.safetensors) of the one SPEC.",
        python="Parameters of the one spec, by name or as a .safetensors file; drawn if left out.",
    )
    inputs: Source = option(
        None,
        "A batch (.npz): arrays NAME, and target.NAME and state.NAME.",
        python="A batch, by name or as an .npz file with arrays NAME, target.NAME and state.NAME; "
        "drawn if left out.",
    )
    state: Arrays = option(None, "The state before the batch, by name.", word="")
    targets: Arrays = option(None, "The targets of the batch, by name.", word="")
    against: str | None = option(
        None,
        "Check a model of your own: FILE.py:NAME, or a .onnx or .keras file.",
        kind="file",
        metavar="MODEL",
    )
    maps: tuple[str, ...] = option(
        (),
        "Which weight of your model is which of the spec's, where names differ; or a file of such "
        "lines.",
        word="--map",
        kind="file",
        metavar="OURS=THEIRS",
    )
    takes: tuple[str, ...] = option(
        (), "What your model takes, in order: inputs, and state.NAME.", metavar="NAME"
    )
    returns: tuple[str, ...] = option(
        (), "What your model returns, in order: outputs, and state.NAME.", metavar="NAME"
    )
    reproducers: Path | None = option(
        None, "Folder to write reproducers to.", section=KEEP, kind="folder", python=None
    )
    baseline: Path | None = option(
        None, "Report what changed since these records.", section=PRINT, python=None
    )
    pairs: bool = option(
        False, "Show how far every two backends are from each other.", section=PRINT, python=None
    )
    as_json: bool = shared.as_json()
    verbose: bool = shared.verbose()
