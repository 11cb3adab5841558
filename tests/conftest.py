"""Where tests run beside each other: files that take long begin first, and each of pytest's
processes keeps to a core of its own.

What a process starts inherits its core: numerical libraries make as many threads as there are
cores, and two of them that wait for each other on the same cores take ten times as long.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Seconds of each file, by its path from here; tests/times.py writes them.
SECONDS: Mapping[str, float] = json.loads((TESTS / "times.json").read_text())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that take long first, so that none of them runs alone at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: -SECONDS.get(item.path.relative_to(TESTS).as_posix(), 0))


def pytest_configure(config: pytest.Config) -> None:
    # GNU readline, which pytest imports, sets these for all programs that tests start, and what is
    # printed into a pipe would be folded at a width that nobody has.
    for name in ("COLUMNS", "LINES"):
        os.unsetenv(name)
    # What tests run would tell GitHub of its planted faults.
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        os.environ.pop(name, None)
    # Else pytest-xdist, from 3.7 on, takes files of many tests first.
    config.option.loadscopereorder = False
    name = os.environ.get("PYTEST_XDIST_WORKER")
    if name is not None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(name.removeprefix("gw")) % len(cores)]})
