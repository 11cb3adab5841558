"""Options of ``compare``, ``upgrade`` and ``merge``. The module imports nothing slow."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from harness.command import shared
from harness.command.declared import option


@dataclass(init=False, repr=False, eq=False)
class CompareOptions:
    """Show the changes from OLD to NEW, two files of 'check --records' or of 'bench --records'.

    With --between, show the changes between two backends of OLD, such as two versions of torch.

    The output first lists changed versions and machines. A cell is worse if it is significantly
    slower, less accurate than rounding explains, has a worse verdict, or is missing.

    The exit code is 0 if nothing is worse, 1 if a cell is worse, and 2 if a file cannot be read or
    compared.
    """

    old: Path = option(MISSING, "Older file of results.", word="old")
    new: Path | None = option(None, "Newer file of results.", word="new")
    between: tuple[str, str] | None = option(
        None,
        "Two backends of one file, such as torch@2.14.1 torch@2.15.0.",
        kind="backend",
        metavar="A B",
    )
    threshold: float = shared.threshold()
    as_json: bool = shared.as_json()
    print_markdown: bool = shared.print_markdown()


@dataclass(init=False, repr=False, eq=False)
class UpgradeOptions:
    """Show how numbers and speeds change from version OLD to version NEW of a framework.

    The versions are written as in torch==2.14.1. If an environment is missing, the command asks in
    a terminal whether to create it; 'harness env' also creates environments.
    Without SPEC, the command checks and times Lesson 6: twelve small character models of a fast.ai
    notebook, which ship as lesson6/NAME

    The exit code is 0 if nothing is worse, 1 if a cell is worse, 2 for wrong usage or a wrong spec,
    and 3 if a version could not run.
    """

    old: str = option(MISSING, "Old version of a framework.", word="old", kind="backend")
    new: str = option(MISSING, "New version of the framework.", word="new", kind="backend")
    specs: tuple[str, ...] = shared.specs()
    want: tuple[str, ...] = option(
        (), "Results to compare: numbers or speed. Default: both.", kind="want"
    )
    quick: bool = option(False, "Check only three models, in float32, with the check 'values'.")
    device: str = shared.device()
    rounds: int = shared.rounds()
    folders: tuple[Path, ...] = shared.folders()
    threshold: float = shared.threshold()
    as_json: bool = shared.as_json()


@dataclass(init=False, repr=False, eq=False)
class MergeOptions:
    """Join files of several shards or machines, from 'check --records' or 'bench --records'.

    If several files have a cell from the same machine and version, the command writes it once.
    Results from different machines or versions stay separate. The output names missing cells.

    The exit code is 0 if the result is complete, 1 if files contradict each other (both results are
    written), 2 if a file cannot be read or joined, and 3 if planned cells are missing.
    """

    files: tuple[Path, ...] = option(MISSING, "Files to join.", word="files", metavar="FILE...")
    output: Path = shared.output("File to write. An existing file is replaced.", MISSING)
    as_json: bool = shared.as_json()
