"""Which tests ``make test`` leaves to ``make test-all``; and where tests run beside each other,
files that take long begin first, and each of pytest's processes keeps to one core. There are more
of them than cores, as a good part of the time of some tests is spent in waiting. The workers of
most tests are forked there (``support/warm_workers.py``).

What a process starts inherits its core: numerical libraries make as many threads as there are
cores, and two of them that wait for each other on the same cores take ten times as long.
"""

from __future__ import annotations

import gc
import json
import os
import signal
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import warm_workers

pytest_plugins = ["wording"]

TESTS = Path(__file__).parent
# Seconds of each file, by its path from here; tests/times.py writes them.
SECONDS: Mapping[str, float] = json.loads((TESTS / "times.json").read_text())
# Of tests that take long, by file and name, the cases that ``make test`` runs, as patterns of their
# parameters: the others, and a test of which none is named, are ``thorough``.
SAMPLES: Mapping[str, Sequence[str]] = json.loads((TESTS / "thorough.json").read_text())


def named(item: pytest.Item) -> tuple[str, str]:
    """A test as :data:`SAMPLES` names it, and its case."""
    place = f"{item.path.relative_to(TESTS).as_posix()}::{item.nodeid.partition('::')[2]}"
    name, _, case = place.partition("[")
    return name, case[:-1]


def sampled_out(item: pytest.Item) -> bool:
    """Whether a test is one of a kind of which ``make test`` runs others."""
    name, case = named(item)
    return name in SAMPLES and not any(fnmatchcase(case, pattern) for pattern in SAMPLES[name])


def stale(items: Sequence[pytest.Item]) -> list[str]:
    """What :data:`SAMPLES` names and no test has, of files whose tests are all there."""
    cases: dict[str, list[str]] = {}
    for name, case in map(named, items):
        cases.setdefault(name, []).append(case)
    files = {name.partition("::")[0] for name in cases}
    found = [name for name in SAMPLES if name.partition("::")[0] in files and name not in cases]
    for name in SAMPLES.keys() & cases.keys():
        absent = (p for p in SAMPLES[name] if not any(fnmatchcase(c, p) for c in cases[name]))
        found += [f"{name}[{pattern}]" for pattern in absent]
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is thorough; put files that take long first, so that none of them runs alone at the
    end.

    Raises:
        pytest.UsageError: a sample is of a test that is not there.
    """
    if not any("::" in argument for argument in config.args) and (absent := stale(items)):
        raise pytest.UsageError(f"tests/thorough.json names what is not there: {absent}")
    for item in filter(sampled_out, items):
        item.add_marker(pytest.mark.thorough)
        item.add_marker(pytest.mark.slow)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: -SECONDS.get(item.path.relative_to(TESTS).as_posix(), 0))


def pytest_xdist_auto_num_workers() -> int:
    cores = len(os.sched_getaffinity(0))
    return cores + (cores + 1) // 2


def pytest_configure(config: pytest.Config) -> None:
    # GNU readline, which pytest imports, sets these for all programs that tests start, and what is
    # printed into a pipe would be folded at a width that nobody has.
    for name in ("COLUMNS", "LINES"):
        os.unsetenv(name)
        os.environ.pop(name, None)
    # By these what tests run would be shown in another way: in colours, and by a pytest that sees
    # a CI each failure once more in its last lines.
    for name in ("CI", "BUILD_NUMBER", "FORCE_COLOR", "PY_COLORS", "NO_COLOR"):
        os.environ.pop(name, None)
    # What tests run would tell GitHub of its planted faults.
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        os.environ.pop(name, None)
    # A job in the background ignores these, and so would all that tests start and then end by them.
    for name in ("SIGINT", "SIGQUIT", "SIGHUP"):
        number = signal.Signals[name]
        if signal.getsignal(number) is signal.SIG_IGN:
            by_default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
            signal.signal(number, by_default)
    # A process of thousands of tests holds much that never goes, and a tenth of its time went into
    # looking through it.
    gc.set_threshold(100_000, 50, 50)
    # Else pytest-xdist, from 3.7 on, takes files of many tests first.
    config.option.loadscopereorder = False
    name = os.environ.get("PYTEST_XDIST_WORKER")
    if name is not None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(name.removeprefix("gw")) % len(cores)]})
        warm_workers.install()
