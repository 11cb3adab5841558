"""The types of what functions take by name, for editors and type checkers.

Written by docs/options.py from the options of commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from harness.api.arguments import Folders, Names
    from harness.oracle.given import Numbers, Source


class CellKeywords(TypedDict, total=False):
    dtypes: Names
    paths: Names
    device: str
    checks: Names
    thorough: bool
    repeat: int
    sizes: Mapping[str, int] | None
    seed: int
    deterministic: bool
    folders: Folders
    pythons: Mapping[str, str | PathLike[str]] | None
    environment: Mapping[str, Mapping[str, str]] | None
    timeout: float
    start_timeout: float | None
    memory_limit: int | None


class CheckKeywords(CellKeywords, total=False):
    shard: str | None
    on: str | None
    jobs: int
    fail_fast: bool
    records: str | PathLike[str] | None
    resume: bool
    history: str | PathLike[str] | None
    fresh: bool
    quick: bool
    weights: Source | None
    inputs: Source | None
    state: Numbers | None
    targets: Numbers | None
    against: str | PathLike[str] | None
    maps: Names | Mapping[str, str]
    takes: Names
    returns: Names
