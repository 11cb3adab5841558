"""Memory that a training holds by the size of its text: the command line and its worker.

``python tests/benchmarks/training_memory.py [--megabytes 1 20 200] [--backends numpy torch]``
prints a row for each training: seconds until 64 steps are made, the most bytes (VmHWM) that the
command line and its worker held by then, and how much of the worker's is its own (RssAnon).
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MEGABYTE = 1_000_000
FIGURES = ("VmHWM", "RssAnon")
PATIENCE = 900.0


class Held(NamedTuple):
    """Bytes of a process: the most in use at one time, and its own (not shared) at the end."""

    most: int
    own: int


def write_text(path: Path, size: int) -> None:
    """A text of so many bytes: Python's own documentation, over and over from other places."""
    from harness.text.corpus import builtin_text

    source = builtin_text().encode("ascii", "replace")
    with path.open("wb") as file:
        for number in range(-(-size // 65536)):
            start = number * 104_729 % (len(source) - 65536)
            file.write(source[start : start + min(65536, size - file.tell())])


def training(text: Path, spec: str, backend: str, folder: Path) -> tuple[float, Held, Held]:
    """Seconds until 64 steps are made, and what the command line and its worker held by then."""
    kept = folder / "weights"
    command = [str(Path(sys.executable).with_name("harness")), "train", spec, "--backend", backend]
    command += ["--text", str(text), "--weights", str(kept), "--every", "64", "--epochs", "1"]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while not kept.exists():
            time.sleep(0.05)
            if run.poll() is not None or time.monotonic() - began > PATIENCE:
                run.kill()
                raise RuntimeError(f"no step was made of {command}")
        seconds = time.monotonic() - began
        found = of(run.pid), max(map(of, _descendants(run.pid)))
        run.send_signal(signal.SIGKILL)
    for file in folder.glob("weights*"):
        file.unlink()
    return seconds, *found


def of(pid: int) -> Held:
    """What a process holds, as Linux counts it."""
    status = Path(f"/proc/{pid}/status").read_text()
    figures = (re.search(rf"{name}:\s+(\d+) kB", status) for name in FIGURES)
    return Held(*(int(found[1]) * 1024 if found else 0 for found in figures))


def _descendants(pid: int) -> Iterator[int]:
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            yield from (child, *_descendants(child))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1, 20, 200])
    parser.add_argument("--backends", nargs="+", default=["numpy", "torch"])
    parser.add_argument("--specs", nargs="+", default=["sequence_rnn", "first_rnn"])
    options = parser.parse_args()
    print("| text, MB | system | backend | s to 64 steps | command, MB | worker, MB | its own |")
    print("|---:|---|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in options.megabytes:
            text = folder / "text"
            write_text(text, size * MEGABYTE)
            for spec in options.specs:
                for backend in options.backends:
                    row = training(text, f"lesson6/{spec}", backend, folder)
                    seconds, parent, worker = row
                    figures = (n / MEGABYTE for n in (parent.most, worker.most, worker.own))
                    numbers = " | ".join(f"{figure:,.0f}" for figure in figures)
                    print(
                        f"| {size} | {spec} | {backend} | {seconds:.1f} | {numbers} |", flush=True
                    )


if __name__ == "__main__":
    main()
