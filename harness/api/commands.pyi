"""The signatures of the functions of commands, written by docs/options.py."""

from collections.abc import Mapping
from os import PathLike

from harness.api.arguments import Folders, Models, Names
from harness.command.outcome import Outcome
from harness.language.model import Spec

def differences(
    layer: str | None = ...,
    *,
    between: tuple[str, str] | None = ...,
    run: bool = ...,
) -> Outcome: ...
def env(
    words: Names = ...,
    *,
    list: bool = ...,
    remove: bool = ...,
    python: str | PathLike[str] | None = ...,
    force: bool = ...,
) -> Outcome: ...
def explain(
    spec: str | PathLike[str] | Spec,
    *,
    folders: Folders = ...,
    sizes: Mapping[str, int] | None = ...,
    backends: Names = ...,
    pythons: Mapping[str, str | PathLike[str]] | None = ...,
    environment: Mapping[str, Mapping[str, str]] | None = ...,
) -> Outcome: ...
def export(
    spec: str | PathLike[str] | Spec,
    *,
    weights: str | PathLike[str],
    format_: str,
    output: str | PathLike[str] | None = ...,
    seed: int = ...,
    folders: Folders = ...,
    python: str | PathLike[str] | None = ...,
    timeout: float = ...,
    force: bool = ...,
) -> Outcome: ...
def import_(
    spec: str | PathLike[str] | Spec,
    file: str | PathLike[str],
    *,
    format_: str,
    weights: str | PathLike[str],
    like: str | PathLike[str] | None = ...,
    sizes: Mapping[str, int] | None = ...,
    folders: Folders = ...,
    python: str | PathLike[str] | None = ...,
    timeout: float = ...,
    force: bool = ...,
) -> Outcome: ...
def list_(
    *,
    backends: bool = ...,
    formats: bool = ...,
    models: bool = ...,
    layers: bool = ...,
    functions: bool = ...,
    losses: bool = ...,
    optimizers: bool = ...,
    initializers: bool = ...,
    folders: Folders = ...,
) -> Outcome: ...
def localise(
    spec: str | PathLike[str] | Spec,
    backend: str,
    *,
    against: str | None = ...,
    dtype: str = ...,
    path: str = ...,
    device: str = ...,
    folders: Folders = ...,
    sizes: Mapping[str, int] | None = ...,
    checks: Names = ...,
    pythons: Mapping[str, str | PathLike[str]] | None = ...,
    environment: Mapping[str, Mapping[str, str]] | None = ...,
    timeout: float = ...,
    seed: int = ...,
) -> Outcome: ...
def merge(
    files: Folders,
    *,
    output: str | PathLike[str],
) -> Outcome: ...
def reduce(
    folder: str | PathLike[str],
    *,
    backend: str | None = ...,
    device: str | None = ...,
    python: str | PathLike[str] | None = ...,
    environment: Mapping[str, str] | None = ...,
    output: str | PathLike[str] | None = ...,
    timeout: float = ...,
    search_timeout: float = ...,
) -> Outcome: ...
def replay(
    folder: str | PathLike[str],
    *,
    backend: str | None = ...,
    device: str | None = ...,
    python: str | PathLike[str] | None = ...,
    environment: Mapping[str, str] | None = ...,
) -> Outcome: ...
def schema(
    kind: str,
) -> Outcome: ...
def upgrade(
    old: str,
    new: str,
    specs: Models = ...,
    *,
    want: Names = ...,
    quick: bool = ...,
    device: str = ...,
    rounds: int = ...,
    folders: Folders = ...,
    threshold: float = ...,
) -> Outcome: ...
def write_report(
    files: Folders,
    *,
    output: str | PathLike[str],
    history: str | PathLike[str] | None = ...,
    bases: Folders = ...,
    relative_to: str | None = ...,
    folders: Folders = ...,
) -> Outcome: ...
