"""Installs plugins of backends that a test writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.runtime.hookspecs import ENTRY_POINT_GROUP


def install_plugin(
    patch: pytest.MonkeyPatch,
    folder: Path,
    module: str,
    source: str,
    *names: str,
    group: str = ENTRY_POINT_GROUP,
) -> None:
    """Install a distribution with one module and its backends in a folder, for this process and
    for the processes that it starts."""
    distribution = module.removeprefix("harness_")
    about = folder / f"{distribution}-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8"
    )
    entries = "".join(f"{name} = {module}\n" for name in names)
    (about / "entry_points.txt").write_text(f"[{group}]\n{entries}", encoding="utf-8")
    patch.syspath_prepend(folder)
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
