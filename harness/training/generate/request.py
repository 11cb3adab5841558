"""What is asked of a writer, and how it says that a backend failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import HarnessError


class GenerateError(HarnessError):
    """A backend failed; ``traceback`` is its own."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


@dataclass(frozen=True)
class GenerateRequest:
    """What to write. ``temperature`` of 0 takes the likeliest character each time; ``top_k`` of 0
    leaves all to choose from. ``cache`` reads each character once, where the model allows it.
    ``environment`` is every backend's, ``environments`` by backend."""

    spec: str
    backends: tuple[str, ...]
    weights: Path
    prompt: str
    length: int = 200
    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float64"
    path: str = "native"
    cache: bool = True
    folders: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    pythons: Mapping[str, str] = field(default_factory=dict)
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
