"""The wheel of this checkout, and an environment with only this wheel and its requirements."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from places import ROOT


def tracked(*folders: str) -> list[str]:
    """Return paths of the files that git tracks or would add, relative to the checkout."""
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
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(folder), str(folder / "source")], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, extras: str, folder: Path) -> Path:
    """Make an environment with the wheel and its extras (``[torch]``); return its folder ``bin``.

    The required packages are symbolic links to the packages of this environment, because a download
    of torch would take longer than the tests.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    binaries = folder / "bin"
    pip = [sys.executable, "-m", "pip", "--python", binaries / "python", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for found in _needed(f"{wheel.name.split('-')[0]}{extras}", site):
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))))
    program = binaries / "pip"
    run = "from pip._internal.cli.main import main; raise SystemExit(main())"
    program.write_text(f"#!{binaries / 'python'}\n{run}\n")
    program.chmod(0o755)
    return binaries


def _needed(first: str, site: Path) -> Iterator[Distribution]:
    """Yield the distributions that a requirement installs (the first from ``site``), and pip."""
    waiting, seen = [first, "pip", "setuptools"], set[str]()
    while waiting:
        wanted = Requirement(waiting.pop())
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        (found, *_) = distributions(name=wanted.name, path=[str(site), *sys.path])
        assert wanted.specifier.contains(found.version, prereleases=True), wanted
        yield found
        for line in found.requires or ():
            marker = Requirement(line).marker
            if not marker or any(marker.evaluate({"extra": e}) for e in {"", *wanted.extras}):
                waiting.append(line)


def variables(binaries: Path) -> dict[str, str]:
    """Return the variables of a shell with an activated environment, without ``PYTHON*``."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**found, "PATH": f"{binaries}{os.pathsep}{found['PATH']}"}
