"""The types of what functions take by name, for editors and type checkers.

Written by docs/options.py from the options of commands.
"""

from collections.abc import Mapping
from os import PathLike
from typing import TypedDict

from harness.api.arguments import Folders, Names, Numbers
from harness.oracle.user_arrays import Numbers as Arrays
from harness.oracle.user_arrays import Source
from harness.program.ir import Phase

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
    state: Arrays | None
    targets: Arrays | None
    against: str | PathLike[str] | None
    maps: Names | Mapping[str, str]
    takes: Names
    returns: Names
    traced_inputs: Names | Mapping[str, str]
    html: str | PathLike[str] | None
    markdown: str | PathLike[str] | None
    junit: str | PathLike[str] | None

class BenchKeywords(TypedDict, total=False):
    device: str
    dtype: str
    batches: Numbers
    times: Numbers
    sizes: Mapping[str, Numbers] | None
    modes: Names
    path: str
    rounds: int
    quick: bool
    tune: bool
    seed: int
    folders: Folders
    shard: str | None
    on: str | None
    threads: int
    pythons: Mapping[str, str | PathLike[str]] | None
    environment: Mapping[str, Mapping[str, str]] | None
    timeout: float
    html: str | PathLike[str] | None
    markdown: str | PathLike[str] | None

class RunKeywords(TypedDict, total=False):
    dtype: str
    device: str
    path: str
    phase: Phase
    seed: int
    timeout: float
    python: str | PathLike[str] | None
    environment: Mapping[str, str] | None
    parameters: Source | None
    inputs: Source | None
    state: Arrays | None
    targets: Arrays | None
    want: Names
    folders: Folders
    sizes: Mapping[str, int] | None

class TrainKeywords(TypedDict, total=False):
    text: str | PathLike[str] | None
    data: str | PathLike[str] | None
    encoding: str
    epochs: int | None
    batch: int | None
    held_out: float
    proof: bool
    device: str
    dtype: str
    path: str
    seed: int
    sizes: Mapping[str, int] | None
    folders: Folders
    threads: int
    python: str | PathLike[str] | None
    environment: Mapping[str, str] | None
    timeout: float
    every: int
    weights: str | PathLike[str] | None
    resume: bool
    force: bool

class GenerateKeywords(TypedDict, total=False):
    length: int
    temperature: float
    top_k: int
    seed: int
    device: str
    dtype: str
    path: str
    cache: bool
    folders: Folders
    environment: Mapping[str, str] | None
    pythons: Mapping[str, str | PathLike[str]] | None
    environments: Mapping[str, Mapping[str, str]] | None

class DemoKeywords(TypedDict, total=False):
    broken: bool
