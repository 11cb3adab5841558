"""Selection and order of the tests.

``make test`` skips the tests that are marked ``thorough``; ``make test-all`` runs them. If tests
run in parallel, slow files start first, and each process of pytest uses a single core. There are
more processes than cores, because some tests mostly wait. In most tests, workers are forked
(``support/warm_workers.py``).

Programs that a test starts inherit the core of its process. Otherwise numerical libraries would
start as many threads as there are cores. Two such libraries on the same cores take ten times as
long.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import pooch
import pytest
from hypothesis import HealthCheck, settings

from harness.files.system import LINUX, usable_cores

pytest_plugins = ["wording", "both_systems"]

# torch's build for GPUs imports triton, which aborts a process that has loaded TensorFlow. On a CPU
# torch does not need triton, and in tests both frameworks may be in one process.
sys.modules["triton"] = None  # type: ignore[assignment]

# Every run draws the same examples, and a slow machine may take its time.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

TESTS = Path(__file__).parent
# The seconds of each slow file, by its path relative to this folder; tests/times.py writes them.
SECONDS: Mapping[str, float] = json.loads((TESTS / "times.json").read_text())
# For slow tests, by file and name: the cases that ``make test`` runs, as patterns of parameters.
# All other cases are ``thorough``, and a test with an empty list is ``thorough`` as a whole.
SAMPLES: Mapping[str, Sequence[str]] = json.loads((TESTS / "thorough.json").read_text())


def named(item: pytest.Item) -> tuple[str, str]:
    """Return a test's key in :data:`SAMPLES`, and the parameters of its case."""
    place = f"{item.path.relative_to(TESTS).as_posix()}::{item.nodeid.partition('::')[2]}"
    name, _, case = place.partition("[")
    return name, case[:-1]


def sampled_out(item: pytest.Item) -> bool:
    """Return whether ``make test`` runs only other cases of this test."""
    name, case = named(item)
    return name in SAMPLES and not any(fnmatchcase(case, pattern) for pattern in SAMPLES[name])


def stale(items: Sequence[pytest.Item]) -> list[str]:
    """Return the entries of :data:`SAMPLES` without a test, for files that were collected whole."""
    cases: dict[str, list[str]] = {}
    for name, case in map(named, items):
        cases.setdefault(name, []).append(case)
    files = {name.partition("::")[0] for name in cases}
    found = [name for name in SAMPLES if name.partition("::")[0] in files and name not in cases]
    for name in SAMPLES.keys() & cases.keys():
        absent = (p for p in SAMPLES[name] if not any(fnmatchcase(c, p) for c in cases[name]))
        found += [f"{name}[{pattern}]" for pattern in absent]
    return found


def share_cache_folder(config: pytest.Config) -> None:
    """Let all tests share an empty cache folder for compiled code. Installers keep their own."""
    if hasattr(config, "workerinput"):  # a process of xdist inherits the variables
        return
    cache = Path(pooch.os_cache(""))
    os.environ.setdefault("UV_CACHE_DIR", str(cache / "uv"))
    os.environ.setdefault("PIP_CACHE_DIR", str(cache / "pip"))
    folder = tempfile.TemporaryDirectory(prefix="harness-tests-")
    os.environ["XDG_CACHE_HOME"] = folder.name
    config.add_cleanup(folder.cleanup)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark thorough tests; put slow files first, so that no slow file runs alone at the end.

    Raises:
        pytest.UsageError: an entry of :data:`SAMPLES` is for a test that does not exist.
    """
    if not any("::" in argument for argument in config.args) and (absent := stale(items)):
        raise pytest.UsageError(f"tests/thorough.json names what is not there: {absent}")
    for item in filter(sampled_out, items):
        item.add_marker(pytest.mark.thorough)
        item.add_marker(pytest.mark.slow)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: -SECONDS.get(item.path.relative_to(TESTS).as_posix(), 0))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    return 2 * usable_cores()


def pytest_configure(config: pytest.Config) -> None:
    # pytest imports GNU readline, which sets these variables for all programs that tests start.
    # Their output to a pipe would then be wrapped at an arbitrary width.
    for name in ("COLUMNS", "LINES"):
        os.unsetenv(name)
        os.environ.pop(name, None)
    # These variables would change the output of programs that tests run: they switch colours on or
    # off, and in CI pytest repeats each failure at the end.
    for name in ("CI", "BUILD_NUMBER", "FORCE_COLOR", "PY_COLORS", "NO_COLOR"):
        os.environ.pop(name, None)
    # Programs that tests run would report their planted faults to GitHub.
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        os.environ.pop(name, None)
    # A background job ignores these signals. All programs that tests start, and later stop by such
    # a signal, would ignore them too.
    for name in {"SIGINT", "SIGQUIT", "SIGHUP"} & signal.Signals.__members__.keys():
        number = signal.Signals[name]
        if signal.getsignal(number) is signal.SIG_IGN:
            by_default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
            signal.signal(number, by_default)
    share_cache_folder(config)
    # A process that runs thousands of tests keeps many objects alive. By default, the garbage
    # collector takes a tenth of the time to scan them.
    gc.set_threshold(100_000, 50, 50)
    # Without this setting, pytest-xdist 3.7 and later starts with the files that have the most
    # tests.
    config.option.loadscopereorder = False
    name = os.environ.get("PYTEST_XDIST_WORKER")
    if name is not None and LINUX:
        import warm_workers  # Windows lacks what it imports

        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(name.removeprefix("gw")) % len(cores)]})
        warm_workers.install()
