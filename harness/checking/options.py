"""The options of ``check`` and of the commands about models, cells and reproducers.

Imports nothing that takes time: the command line must start at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.command import shared
from harness.command.declared import HOW, KEEP, LIST, PRINT, option, options_of
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


# The options that decide the result of a cell.
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
    """Check backends against the oracle: all that are installed, on all of Lesson 6, if left out.

    Lesson 6 is the twelve small character models of fast.ai's notebook that ship as lesson6/NAME

    Exit code 0: all agree, or differ as known; 1: something differs; 2: wrong usage or a wrong
    spec; 3: a backend could not be run. With --baseline, 1: something is worse than it was there,
    and 0: nothing is.
    """

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
    html: Path | None = shared.html()
    markdown: Path | None = shared.markdown()
    junit: Path | None = option(None, "File to write JUnit's XML of the run to.", section=KEEP)
    baseline: Path | None = option(
        None, "Report what changed since these records.", section=PRINT, python=None
    )
    pairs: bool = option(
        False, "Show how far every two backends are from each other.", section=PRINT, python=None
    )
    as_json: bool = shared.as_json()
    verbose: bool = shared.verbose()


def _kind(kinds: str) -> Any:
    return option(False, f"List the {kinds}, and no others.", section=LIST)


@dataclass(init=False, repr=False, eq=False)
class ListOptions:
    """List installed backends, formats, models and definitions. Imports no framework."""

    backends: bool = _kind("backends")
    formats: bool = _kind("formats")
    models: bool = _kind("models")
    layers: bool = _kind("layers")
    functions: bool = _kind("functions")
    losses: bool = _kind("losses")
    optimizers: bool = _kind("optimizers")
    initializers: bool = _kind("initializers")
    folders: tuple[Path, ...] = shared.folders()
    as_json: bool = shared.as_json()


# The kinds that can be listed.
LISTED = tuple(one.name for one in options_of(ListOptions) if one.section == LIST)
# Kinds of files that have a JSON Schema.
SCHEMAS = ("model", "layer", "function", "loss", "optimizer")


@dataclass(init=False, repr=False, eq=False)
class SchemaOptions:
    """Print the JSON Schema of a kind of spec file, for editors."""

    kind: str = option(
        MISSING, "The kind of file.", word="kind", kind="schema", metavar=f"{{{'|'.join(SCHEMAS)}}}"
    )


@dataclass(init=False, repr=False, eq=False)
class ExplainOptions:
    """Show what SPEC means: a model's program, shapes, parameters, operations and paths.

    SPEC may also be a layer, a function, a loss, an optimizer or an initializer.
    """

    spec: str = shared.spec()
    folders: tuple[Path, ...] = shared.folders()
    sizes: Mapping[str, int] = shared.sizes()
    backends: tuple[str, ...] = option(
        (), "Also ask which path its layers take.", word="--backend", kind="backend"
    )
    pythons: Mapping[str, str] = shared.pythons()
    environment: Mapping[str, Mapping[str, str]] = shared.environment()
    as_json: bool = shared.as_json()


@dataclass(init=False, repr=False, eq=False)
class ReplayOptions:
    """Run the reproducer in FOLDER again: exit code 0 if it agrees now, 1 if it differs."""

    folder: Path = option(MISSING, "Folder of the reproducer.", word="folder")
    backend: str | None = option(None, "Run it on another backend.", kind="backend")
    device: str | None = option(
        None,
        "Device to compute on. If left out, FOLDER's; the CPU of another backend without it.",
        kind="device",
    )
    python: str | None = shared.python()
    environment: Mapping[str, str] = shared.variables()
    as_json: bool = shared.as_json()


@dataclass(init=False, repr=False, eq=False)
class ReduceOptions(ReplayOptions):
    """Make the reproducer in FOLDER smaller for as long as it stays wrong, in a new folder.

    Exit code 0: done; 2: FOLDER holds no reproducer, or it agrees; 3: the backend could not be run.
    """

    output: Path | None = shared.output(
        "The new folder; FOLDER-reduced if left out.", kind="folder"
    )
    timeout: float = shared.timeout(60.0, "pass")
    search_timeout: float = option(
        CELL_SECONDS,
        "Seconds that the search may take; what was found by then is written.",
        section=HOW,
        allowed=TIMEOUT,
        shown=True,
    )


@dataclass(init=False, repr=False, eq=False)
class LocaliseOptions:
    """Look for the cause of a difference: SPEC on one backend, against the oracle or another.

    The right value is fed in where a value, a gradient or a step is first wrong: what then agrees
    was wrong because of it. Exit code 0: all agrees; 1: something differs, and the cause is told;
    2: wrong usage or a wrong spec; 3: a backend could not be run.
    """

    spec: str = shared.spec()
    backend: str = shared.backend()
    against: str | None = option(None, "Another backend, in place of the oracle.", kind="backend")
    dtype: str = shared.dtype("float32", "float64, bfloat16 and float16")
    path: str = shared.path("native")
    device: str = shared.device()
    folders: tuple[Path, ...] = shared.folders()
    sizes: Mapping[str, int] = shared.sizes()
    checks: tuple[str, ...] = shared.checks()
    pythons: Mapping[str, str] = shared.pythons()
    environment: Mapping[str, Mapping[str, str]] = shared.environment()
    timeout: float = shared.timeout(CELL_SECONDS, "cell")
    seed: int = shared.seed("Seed of the numbers to compare with.")
    as_json: bool = shared.as_json()
