"""The signatures of the functions of commands, written by docs/options.py."""

from collections.abc import Mapping
from os import PathLike

from harness.api.arguments import Folders, Models, Names, Numbers
from harness.command.outcome import CommandResult
from harness.language.model import Spec

def cache(
    *,
    clear: bool = ...,
) -> CommandResult: ...
def differences(
    layer: str | None = ...,
    *,
    between: tuple[str, str] | None = ...,
    run: bool = ...,
) -> CommandResult: ...
def env(
    words: Names = ...,
    *,
    list: bool = ...,
    remove: bool = ...,
    python: str | PathLike[str] | None = ...,
    force: bool = ...,
) -> CommandResult: ...
def explain(
    spec: str | PathLike[str] | Spec,
    *,
    folders: Folders = ...,
    sizes: Mapping[str, int] | None = ...,
    backends: Names = ...,
    pythons: Mapping[str, str | PathLike[str]] | None = ...,
    environment: Mapping[str, Mapping[str, str]] | None = ...,
    html: str | PathLike[str] | None = ...,
) -> CommandResult: ...
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
) -> CommandResult: ...
def fuzz(
    *,
    backends: Names = ...,
    dtypes: Names = ...,
    path: str = ...,
    device: str = ...,
    minutes: float = ...,
    cases: int = ...,
    seed: int = ...,
    folders: Folders = ...,
    threads: Numbers = ...,
    instruction_sets: bool = ...,
    pythons: Mapping[str, str | PathLike[str]] | None = ...,
    environment: Mapping[str, Mapping[str, str]] | None = ...,
    timeout: float = ...,
    records: str | PathLike[str] | None = ...,
    resume: bool = ...,
    reproducers: str | PathLike[str] | None = ...,
) -> CommandResult: ...
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
) -> CommandResult: ...
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
) -> CommandResult: ...
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
) -> CommandResult: ...
def merge(
    files: Folders,
    *,
    output: str | PathLike[str],
) -> CommandResult: ...
def new_backend(
    name: str,
    *,
    graph: bool = ...,
    lazy: bool = ...,
) -> CommandResult: ...
def port(
    model: str | PathLike[str] = ...,
    *,
    inputs: Names | Mapping[str, str] = ...,
    formats: Names = ...,
    output: str | PathLike[str] = ...,
    name: str | None = ...,
    weights: str | PathLike[str] | None = ...,
    large: str | PathLike[str] | None = ...,
    large_inputs: Names | Mapping[str, str] = ...,
    loss: str | None = ...,
    backend: str | None = ...,
    checked: Names = ...,
    python: str | PathLike[str] | None = ...,
    timeout: float = ...,
    force: bool = ...,
    operators: bool = ...,
) -> CommandResult: ...
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
) -> CommandResult: ...
def replay(
    folder: str | PathLike[str],
    *,
    backend: str | None = ...,
    device: str | None = ...,
    python: str | PathLike[str] | None = ...,
    environment: Mapping[str, str] | None = ...,
) -> CommandResult: ...
def schema(
    kind: str,
) -> CommandResult: ...
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
) -> CommandResult: ...
def write_report(
    files: Folders,
    *,
    output: str | PathLike[str],
    history: str | PathLike[str] | None = ...,
    bases: Folders = ...,
    relative_to: str | None = ...,
    folders: Folders = ...,
) -> CommandResult: ...
