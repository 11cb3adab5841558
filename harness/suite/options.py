"""The suite's options for pytest, and the request for a run of checks that is made from them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.checking.options import CellOptions
from harness.command.declared import Option, options_of
from harness.command.ranges import Range
from harness.errors import HarnessError
from harness.output.printing import shown

# With one of these options, pytest prints information and runs no tests.
INFORMING = ("help", "version", "markers", "showfixtures", "cacheshow")
# The options of ``harness check`` that the suite also has.
OPTIONS = [one for one in options_of(CellOptions) if one.suite]
# Values of ``--dist`` with which pytest-xdist distributes the tests over processes.
DISTRIBUTED = ("load", "loadfile", "loadgroup", "loadscope", "worksteal")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite to pytest; most names begin with ``--harness``."""
    group = parser.getgroup("harness.suite", "checks of a backend against the oracle")
    for declared in OPTIONS:
        several = declared.type.startswith("tuple")
        # The suite requires ``--backend``, so the help must not mention a default.
        help_text = declared.help if declared.name != "backends" else "Backends to check."
        settings: dict[str, Any] = {"help": help_text.removesuffix(".")}
        if declared.shown:
            settings["help"] += (
                f" (default: {', '.join(declared.default) if several else declared.default})"
            )
        if declared.type == "bool":
            settings["action"] = "store_true"
        else:
            name = re.sub("[^A-Z]", "", declared.metavar or declared.kind.upper())
            settings |= {"metavar": name or "NUMBER", "default": declared.default}
        if several:
            settings |= {"action": "append", "default": []}
        if declared.allowed is not None:
            settings["type"] = _make_reader(declared.allowed)
        group.addoption(declared.suite, **settings)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Create the engine, which runs the checks, before tests are collected. So a wrong name ends
    pytest at once.

    Raises:
        UsageError: no backend is selected, or the request is invalid. (This is pytest's class.)
    """
    if any(getattr(config.option, name, None) for name in INFORMING):
        return
    from harness.checking.engine import Engine
    from harness.given.make_request import make_check_request
    from harness.suite.cells import ENGINE, ReportCollector, list_tests

    option = config.getoption
    if not option("--backend"):
        raise pytest.UsageError(
            "no backend is selected: add --backend NAME; `harness list` shows installed backends"
        )
    try:
        request = make_check_request(
            {one.name: _read_value(one, option(one.suite)) for one in OPTIONS}
        )
        config.stash[ENGINE] = Engine(request)
    except HarnessError as error:
        raise pytest.UsageError(shown(str(error))) from None
    collector = ReportCollector(request.backends, list_tests(config.stash[ENGINE]))
    config.pluginmanager.register(collector, "harness-suite-told")


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    """Give the suite's test module the same name on all machines, independent of where the harness
    is installed, so that reports from several machines can be merged."""
    from harness.suite.cells import NAME

    if not module_path.samefile(Path(__file__).with_name("test_checks.py")):
        return None
    module: pytest.Module = pytest.Module.from_parent(parent, path=module_path, nodeid=NAME)
    return module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return a scheduler for pytest-xdist that runs all tests of a model on a backend in the same
    process."""
    from harness.suite.cells import ENGINE, list_tests

    if config.getoption("dist") not in DISTRIBUTED:
        return None
    from harness.suite.scheduling import CellScheduling

    return CellScheduling(config, log, list_tests(config.stash[ENGINE]))


def _read_value(declared: Option, value: Any) -> Any:
    """Return the value of an option, converted as ``declared`` says. An option that takes a list
    can be repeated, and each of its values can be a comma-separated list."""
    if not declared.type.startswith("tuple"):
        return declared.read(value) if value is not None else None
    names = value
    if declared.word != declared.name:  # lists of positional arguments are not split at commas
        for text in value:
            if not all(name.strip() for name in text.split(",")):
                raise pytest.UsageError(
                    f"{declared.suite}: a name is missing beside a comma of {text!r}"
                )
        names = [name.strip() for text in value for name in text.split(",")]
    values = tuple(dict.fromkeys(map(Path, names) if "Path" in declared.type else names))
    return values or declared.default


def _make_reader(allowed: Range) -> Callable[[str], float]:

    def read(text: str) -> float:
        try:
            return float(allowed.read(text)) if not allowed.whole else int(allowed.read(text))
        except HarnessError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the engine, which ends its workers."""
    from harness.suite.cells import ENGINE

    engine = config.stash.get(ENGINE, None)
    if engine is not None:
        engine.close()
