"""The options of the suite, and the request that they stand for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.command.ranges import MEMORY_MIB, REPEAT, TIMEOUT, Range
from harness.errors import HarnessError
from harness.output.printing import shown

# Options with which pytest tells something and runs no test.
TELLING = ("help", "version", "markers", "showfixtures", "cacheshow")
# Ways of pytest-xdist that run each test in one process.
SPREADING = ("load", "loadfile", "loadgroup", "loadscope", "worksteal")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Those of ``harness check``; names that are long begin with ``--harness``."""
    group = parser.getgroup("harness.suite", "checks of a backend against the oracle")
    add = group.addoption
    many: dict[str, Any] = {"action": "append", "default": []}
    add("--backend", metavar="NAME", help="backend to check; several by comma", **many)
    dtypes = "float64 or float32, both if left out; bfloat16 or float16"
    add("--dtype", metavar="DTYPE", help=dtypes, **many)
    add("--device", default="cpu", help="device to run on (default: cpu)")
    add(
        "--harness-path",
        default="native",
        choices=["native", "equations", "derived"],
        help="the framework's own layers where it has them, or the equations (default: native)",
    )
    add(
        "--harness-spec",
        metavar="SPEC",
        help="model by name or file; the twelve that ship as lesson6/NAME (fast.ai) if left out",
        **many,
    )
    add(
        "--harness-specs",
        type=Path,
        metavar="FOLDER",
        help="folder of further definitions; several are allowed",
        **many,
    )
    add("--harness-thorough", action="store_true", help="the dear checks too")
    add(
        "--harness-repeat",
        type=_number(REPEAT),
        default=0,
        help="soak: repeat a pass so often (default: 0)",
    )
    add(
        "--harness-deterministic",
        action="store_true",
        help="have the framework give the same bits for the same call, on a GPU too",
    )
    add(
        "--harness-timeout",
        type=_number(TIMEOUT),
        default=120.0,
        help="seconds for one cell (default: 120)",
    )
    add(
        "--harness-start-timeout",
        type=_number(TIMEOUT),
        help="seconds for the backend's start (default: 300, or HARNESS_START_TIMEOUT)",
    )
    add(
        "--harness-memory",
        type=_number(MEMORY_MIB),
        metavar="MIB",
        help="resident MiB that a worker may take",
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Open the engine: a wrong name ends pytest before anything is collected.

    Raises:
        UsageError: no backend is named, or something asked for cannot be. pytest's own.
    """
    if any(getattr(config.option, name, None) for name in TELLING):
        return
    from harness.checking.request import Request
    from harness.checking.run import Engine
    from harness.suite.cells import ENGINE, tests
    from harness.suite.told import Told

    option = config.getoption
    if not option("--backend"):
        raise pytest.UsageError(
            "which backend? Add --backend NAME; `harness list` shows what is installed"
        )
    memory = option("--harness-memory")
    request = Request(
        specs=tuple(option("--harness-spec")),
        backends=_listed("--backend", option("--backend")),
        dtypes=_listed("--dtype", option("--dtype")) or ("float64", "float32"),
        paths=(option("--harness-path"),),
        device=option("--device"),
        folders=tuple(option("--harness-specs")),
        thorough=option("--harness-thorough"),
        repeat=option("--harness-repeat"),
        deterministic=option("--harness-deterministic"),
        timeout=option("--harness-timeout"),
        start_timeout=option("--harness-start-timeout"),
        memory_limit=None if memory is None else memory * 2**20,
    )
    try:
        config.stash[ENGINE] = Engine(request)
    except HarnessError as error:
        raise pytest.UsageError(shown(str(error))) from None
    told = Told(request.backends, tests(config.stash[ENGINE]))
    config.pluginmanager.register(told, "harness-suite-told")


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    """The suite under the same name wherever it is installed, so that reports of several machines
    can be merged and what a cache of failures holds is found again."""
    from harness.suite.cells import NAME

    if not module_path.samefile(Path(__file__).with_name("test_checks.py")):
        return None
    made: pytest.Module = pytest.Module.from_parent(parent, path=module_path, nodeid=NAME)
    return made


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With pytest-xdist, what belongs together stays together."""
    from harness.suite.cells import ENGINE, tests

    if config.getoption("dist") not in SPREADING:
        return None
    from harness.suite.scheduling import CellScheduling

    return CellScheduling(config, log, tests(config.stash[ENGINE]))


def _listed(option: str, given: Sequence[str]) -> tuple[str, ...]:
    """Names by repetition or by comma, each once."""
    for text in given:
        if not all(name.strip() for name in text.split(",")):
            raise pytest.UsageError(f"{option}: nothing stands beside a comma of {text!r}")
    return tuple(dict.fromkeys(name.strip() for text in given for name in text.split(",")))


def _number(allowed: Range) -> Callable[[str], float]:
    """The function that argparse reads a number with."""

    def read(text: str) -> float:
        try:
            return float(allowed.read(text)) if not allowed.whole else int(allowed.read(text))
        except HarnessError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the workers."""
    from harness.suite.cells import ENGINE

    engine = config.stash.get(ENGINE, None)
    if engine is not None:
        engine.close()
