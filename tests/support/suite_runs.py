"""The test suite for third parties, run by pytest in a separate, usually forked process."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import plugin_faulty_cells
import warm_commands


def suite(
    folder: Path,
    *arguments: str,
    faults: dict[str, str] | None = None,
    tests: str = "harness.suite",
    cache: bool = False,
    plugins: Mapping[str, str] | None = None,
    forked: bool = True,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run the suite in a folder.

    ``faults`` maps cells to faults of the ``faulty-*`` backends. With ``cache``, pytest stores
    failed tests. ``plugins`` maps names to the source of further plugins. If ``forked`` is False, a
    new Python starts, as it does for third parties."""
    given = plugin_faulty_cells.variables(faults or {})
    for name, source in (plugins or {}).items():
        (folder / f"{name}.py").write_text(source)
    path = os.pathsep.join([str(folder), given["PYTHONPATH"]])
    command = ["-W", "error", "--pyargs", tests, *arguments]
    command += [] if cache else ["-p", "no:cacheprovider"]
    command += [word for name in plugins or {} for word in ("-p", name)]
    env = {**os.environ, **given, "PYTHONPATH": path, "PYTEST_ADDOPTS": "", **variables}
    if forked:
        return warm_commands.run(command, cwd=folder, env=env, timeout=300, program="pytest")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *command],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def specs(*names: str) -> list[str]:
    return [argument for name in names for argument in ("--harness-spec", name)]


def times(report: Path) -> dict[str, float]:
    """Return the seconds of each test in a JUnit file, by name."""
    return {
        case.get("name", "")[11:-1]: float(case.get("time", "nan"))
        for case in ET.parse(report).iter("testcase")
    }
