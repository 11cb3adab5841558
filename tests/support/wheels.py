"""The wheel of this checkout, and an environment that has nothing but it and what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from places import ROOT


def tracked(*folders: str) -> list[str]:
    """Paths of the files that git tracks or would add, relative to the checkout."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def build(folder: Path) -> Path:
    """Build the wheel in a copy of the checkout, so that no build folder is left behind."""
    for name in tracked():
        if not name.startswith("tests/"):
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    subprocess.run([*command, str(folder / "source")], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, extras: str, folder: Path) -> Path:
    """Make an environment and install the wheel with extras (``[torch]``); returns its ``bin``."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    binaries = folder / "bin"
    # Modules are compiled when they are first imported: most never are.
    command = [binaries / "python", "-m", "pip", "install", "--quiet", "--no-compile"]
    subprocess.run([*command, f"{wheel}{extras}"], check=True, env=variables(binaries))
    return binaries


def variables(binaries: Path) -> dict[str, str]:
    """The variables of a shell in which an environment is activated, and Python has no others."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**found, "PATH": f"{binaries}{os.pathsep}{found['PATH']}"}
