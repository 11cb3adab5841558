"""The options of ``check`` and of the commands about models, cells and reproducers.

This module imports nothing slow, because the command line must start quickly.
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
    from harness.oracle.user_arrays import Numbers as Arrays
    from harness.oracle.user_arrays import Source

# The dtypes of a run if the user selects none.
DTYPES = ("float64", "float32")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class CellOptions:
    """Options that select cells and control how each cell runs. Empty ``specs`` select all models
    of Lesson 6, and empty ``backends`` select all installed backends."""

    specs: tuple[str, ...] = shared.specs(suite="--harness-spec")
    backends: tuple[str, ...] = shared.backends(suite="--backend")
    dtypes: tuple[str, ...] = option(
        DTYPES,
        "Dtypes: float64, float32, bfloat16, float16. Default: float64 and float32.",
        word="--dtype",
        kind="dtype",
        suite="--dtype",
    )
    paths: tuple[str, ...] = option(
        ("native",),
        "Paths: native (framework layers), equations (framework gradients), derived (harness "
        "gradients), or all. A model of your own has other paths (docs/own-model.md).",
        word="--path",
        kind="path",
        shown=True,
        suite="--harness-path",
    )
    device: str = shared.device(suite="--device")
    checks: tuple[str, ...] = shared.checks(decides=True)
    thorough: bool = option(
        False,
        "Also run the slow checks (docs/method.md).",
        decides=True,
        suite="--harness-thorough",
    )
    repeat: int = option(
        0,
        "Repeat a pass this many times, to find errors that appear only after many passes.",
        allowed=REPEAT,
        decides=True,
        suite="--harness-repeat",
    )
    sizes: Mapping[str, int] = shared.sizes(decides=True)
    seed: int = shared.seed("Seed of the random test data.", decides=True)
    deterministic: bool = option(
        False,
        "Make every framework deterministic: the same call gives the same bits, also on a GPU.",
        decides=True,
        suite="--harness-deterministic",
    )
    folders: tuple[Path, ...] = shared.folders(suite="--harness-specs")
    pythons: Mapping[str, str] = shared.pythons()
    environment: Mapping[str, Mapping[str, str]] = shared.environment()
    timeout: float = shared.timeout(CELL_SECONDS, "cell", suite="--harness-timeout")
    start_timeout: float | None = option(
        None,
        "Time limit in seconds for the start of a backend. Default: HARNESS_START_TIMEOUT, or 300.",
        section=HOW,
        allowed=TIMEOUT,
        suite="--harness-start-timeout",
    )
    memory_limit: int | None = option(
        None,
        "Largest resident memory of a worker, in MiB.",
        section=HOW,
        word="--memory",
        allowed=MEMORY_MIB,
        unit=2**20,
        suite="--harness-memory",
        python="Largest resident memory of a worker, in bytes.",
    )


# The options that decide the result of a cell.
DECIDING = tuple(one for one in options_of(CellOptions) if one.decides)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class RunOptions(CellOptions):
    """Options of the whole run: parallelism, records, and reuse of earlier results."""

    shard: Shard | None = shared.shard()
    on: str | None = shared.on()
    jobs: int = option(
        0,
        "Number of backends to run at the same time. Default: 0, the number of cores.",
        section=HOW,
        allowed=JOBS,
    )
    fail_fast: bool = option(False, "Start no cell after the first failure.", section=HOW)
    records: Path | None = shared.records()
    resume: bool = shared.resume()
    history: Path | None = option(
        None,
        "Folder of record files. Skip unchanged cells that already agreed in these files.",
        section=KEEP,
        kind="folder",
    )
    fresh: bool = option(
        False,
        "Run all cells, also the cells that --history would skip, and use no compiled code "
        "or noise of earlier runs.",
        section=KEEP,
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class CheckOptions(RunOptions):
    """Compare backends with the oracle. Default: all installed backends, on all of Lesson 6.

    In place of SPEC, you can name a model of your own, such as net.py:Net or net.onnx.

    Lesson 6 is twelve small character models of a fast.ai notebook, which ship as lesson6/NAME

    The exit code is 0 if all cells agree or have only known differences, 1 if a cell differs, 2 for
    wrong usage or a wrong spec, and 3 if a backend could not run. With --baseline, the exit code is
    1 if a result became worse, and 0 otherwise.
    """

    quick: bool = option(
        False,
        "Run only the check 'values' on three models in float32, which finishes in seconds. You "
        "can name other checks, models or dtypes.",
    )
    weights: Source = option(
        None,
        "Parameters (.safetensors) of SPEC. Allowed with one SPEC only.",
        python="Parameters of the spec, by name or as a .safetensors file. Default: random.",
    )
    inputs: Source = option(
        None,
        "Batch (.npz) with an array for each input NAME, target.NAME and state.NAME.",
        python="Batch, as arrays by name or an .npz file with arrays NAME, target.NAME and "
        "state.NAME. Default: random.",
    )
    state: Arrays = option(None, "State before the batch, as arrays by name.", word="")
    targets: Arrays = option(None, "Targets of the batch, as arrays by name.", word="")
    against: str | None = option(
        None,
        "Check your own model: FILE.py:NAME, or an .onnx or .keras file.",
        kind="file",
        metavar="MODEL",
    )
    maps: tuple[str, ...] = option(
        (),
        "A weight's name in your model and its name in the spec, if the names differ, or a file "
        "with one pair per line.",
        word="--map",
        kind="file",
        metavar="OURS=THEIRS",
    )
    takes: tuple[str, ...] = option(
        (), "Arguments of your model, in order: names of inputs, and state.NAME.", metavar="NAME"
    )
    returns: tuple[str, ...] = option(
        (),
        "Return values of your model, in order: names of outputs, and state.NAME.",
        metavar="NAME",
    )
    traced_inputs: tuple[str, ...] = option(
        (),
        "Input of a model of your own in place of SPEC, as in 'harness port'.",
        word="--input",
        metavar="NAME=LENGTHS",
    )
    reproducers: Path | None = option(
        None, "Write reproducers to this folder.", section=KEEP, kind="folder", python=None
    )
    html: Path | None = shared.html()
    markdown: Path | None = shared.markdown()
    junit: Path | None = option(None, "Write the results as JUnit XML to this file.", section=KEEP)
    baseline: Path | None = option(
        None, "Compare the results with this older record file.", section=PRINT, python=None
    )
    pairs: bool = option(
        False, "Show for each pair of backends how many digits agree.", section=PRINT, python=None
    )
    as_json: bool = shared.as_json()
    verbose: bool = shared.verbose()


def _kind(kinds: str) -> Any:
    return option(False, f"List only the {kinds}.", section=LIST)


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
        MISSING,
        "Kind of spec file.",
        word="kind",
        kind="schema",
        metavar=f"{{{'|'.join(SCHEMAS)}}}",
    )


@dataclass(init=False, repr=False, eq=False)
class ExplainOptions:
    """Explain SPEC: the program of a model, its shapes, parameters, operations and paths.

    SPEC may also be a layer, a function, a loss, an optimizer or an initializer.
    """

    spec: str = shared.spec()
    folders: tuple[Path, ...] = shared.folders()
    sizes: Mapping[str, int] = shared.sizes()
    backends: tuple[str, ...] = option(
        (), "Also show how this backend runs each layer.", word="--backend", kind="backend"
    )
    pythons: Mapping[str, str] = shared.pythons()
    environment: Mapping[str, Mapping[str, str]] = shared.environment()
    html: Path | None = option(
        None, "Draw the model on an HTML page, and write it to this file.", section=KEEP
    )
    as_json: bool = shared.as_json()


@dataclass(init=False, repr=False, eq=False)
class ReplayOptions:
    """Run the reproducer in FOLDER again. The exit code is 0 if the results agree now, 1 if they
    differ."""

    folder: Path = option(MISSING, "Folder of the reproducer.", word="folder")
    backend: str | None = option(None, "Run the reproducer on another backend.", kind="backend")
    device: str | None = option(
        None,
        "Device. Default: the reproducer's device, or cpu if the backend has no such device.",
        kind="device",
    )
    python: str | None = shared.python()
    environment: Mapping[str, str] = shared.variables()
    as_json: bool = shared.as_json()


@dataclass(init=False, repr=False, eq=False)
class ReduceOptions(ReplayOptions):
    """Shrink the reproducer in FOLDER while it still fails, and write it to a new folder.

    The exit code is 0 for success, 2 if FOLDER has no reproducer or the reproducer agrees, and 3 if
    the backend could not run.
    """

    output: Path | None = shared.output("Folder to write. Default: FOLDER-reduced.", kind="folder")
    timeout: float = shared.timeout(60.0, "pass")
    search_timeout: float = option(
        CELL_SECONDS,
        "Time limit in seconds for the search. The command then writes the smallest reproducer.",
        section=HOW,
        allowed=TIMEOUT,
        shown=True,
    )


@dataclass(init=False, repr=False, eq=False)
class LocaliseOptions:
    """Find the cause of a mismatch between a backend and the oracle, or another backend.

    The command replaces the first wrong value, gradient or step by the right numbers. All results
    that then agree were wrong because of this value.

    The exit code is 0 if all results agree, 1 if a result differs, 2 for wrong usage or a wrong
    spec, and 3 if a backend could not run.
    """

    spec: str = shared.spec()
    backend: str = shared.backend()
    against: str | None = option(
        None, "Backend to compare with, instead of the oracle.", kind="backend"
    )
    dtype: str = shared.dtype("float32", "float64, bfloat16 and float16")
    path: str = shared.path("native")
    device: str = shared.device()
    folders: tuple[Path, ...] = shared.folders()
    sizes: Mapping[str, int] = shared.sizes()
    checks: tuple[str, ...] = shared.checks()
    pythons: Mapping[str, str] = shared.pythons()
    environment: Mapping[str, Mapping[str, str]] = shared.environment()
    timeout: float = shared.timeout(CELL_SECONDS, "cell")
    seed: int = shared.seed("Seed of the random test data.")
    as_json: bool = shared.as_json()
