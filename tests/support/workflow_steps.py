"""Runs a step of a workflow as GitHub does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_step(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a step in a folder, with the commands of this environment on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
