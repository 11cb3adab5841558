"""Where tests run beside each other, each of pytest's processes keeps to a core of its own.

What it starts inherits that: numerical libraries make as many threads as there are cores, and two
of them that wait for each other on the same cores take ten times as long.
"""

from __future__ import annotations

import os


def pytest_configure() -> None:
    name = os.environ.get("PYTEST_XDIST_WORKER")
    if name is not None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(name.removeprefix("gw")) % len(cores)]})
