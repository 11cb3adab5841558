"""What ``harness export`` and ``harness import`` are asked for, and what comes of an export."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.command.ranges import CALL_SECONDS
from harness.convert.agreement import Agreement


@dataclass(frozen=True)
class Export:
    """What ``harness export`` is asked for."""

    spec: str
    weights: Path
    format_: str
    output: Path | None = None
    force: bool = False
    seed: int = 0
    folders: Sequence[Path] = ()
    python: str = sys.executable
    timeout: float = CALL_SECONDS


@dataclass(frozen=True)
class Exporting:
    """What came of it. Where the outputs differ, ``files`` are none, and ``doubt`` is what the
    format says of that (:meth:`.formats.Format.doubt`)."""

    spec: str
    dtype: str
    agreement: Agreement
    files: Sequence[Path]
    versions: Mapping[str, str]
    doubt: str = ""


@dataclass(frozen=True)
class Import:
    """What ``harness import`` is asked for."""

    spec: str
    file: Path
    format_: str
    weights: Path
    like: Path | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    force: bool = False
    folders: Sequence[Path] = ()
    python: str = sys.executable
    timeout: float = CALL_SECONDS
