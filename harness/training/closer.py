"""What a user does next where a backend is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.output.shell import command_line


def look_closer(
    spec: str, backend: str, device: str, folders: Iterable[Path], sizes: Mapping[str, int]
) -> str:
    """In words, the command that holds a model on a backend against the oracle, path by path."""
    words = ["harness", "check", spec, "--backend", backend, "--path", "all"]
    words += ["--device", device] if device != "cpu" else []
    words += [word for folder in folders for word in ("--specs", str(folder))]
    words += [word for name, size in sizes.items() for word in ("--size", f"{name}={size}")]
    return f"to look closer, run {command_line(words)}"
