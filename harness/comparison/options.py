"""Options of ``compare``, ``upgrade`` and ``merge``. The module imports nothing slow."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from harness.command import shared
from harness.command.declared import option


@dataclass(init=False, repr=False, eq=False)
class CompareOptions:
    """Show what changed from OLD to NEW: two files of 'check --records', or of 'bench --records'.

    With --between, what changes from one column of OLD to another: two versions of a framework.

    They may be of other versions and machines; what differs there is told first. Worse is what is
    slower beyond the threshold and the noise, less accurate than rounding explains, of a graver
    verdict, or gone.

    Exit code 0: nothing is worse; 1: something is; 2: the files cannot be read or compared.
    """

    old: Path = option(MISSING, "A file of results.", word="old")
    new: Path | None = option(None, "The same of the later run.", word="new")
    between: tuple[str, str] | None = option(
        None,
        "Two columns of the one file, such as torch@2.14.1 torch@2.15.0.",
        kind="backend",
        metavar="A B",
    )
    threshold: float = shared.threshold()
    as_json: bool = shared.as_json()
    print_markdown: bool = shared.print_markdown()


@dataclass(init=False, repr=False, eq=False)
class UpgradeOptions:
    """Tell whether going from OLD to NEW changes a number or a speed: two versions of a framework.

    They are columns of --backend, such as torch==2.14.1 and torch==2.15.0. Environments that are
    missing are made after a question at a terminal, or by 'harness env'.
    If no SPEC is given, the command checks and times Lesson 6: the twelve small character models of
    fast.ai's notebook that ship as lesson6/NAME

    Exit code 0: nothing is worse; 1: something is; 2: wrong usage or a wrong spec; 3: one of them
    could not be run.
    """

    old: str = option(MISSING, "A version of a framework.", word="old", kind="backend")
    new: str = option(MISSING, "Another version.", word="new", kind="backend")
    specs: tuple[str, ...] = shared.specs()
    want: tuple[str, ...] = option((), "numbers or speed; both if left out.", kind="want")
    quick: bool = option(False, "Three models, float32, the check 'values'.")
    device: str = shared.device()
    rounds: int = shared.rounds()
    folders: tuple[Path, ...] = shared.folders()
    threshold: float = shared.threshold()
    as_json: bool = shared.as_json()


@dataclass(init=False, repr=False, eq=False)
class MergeOptions:
    """Join FILEs of several shards or machines: of 'check --records', or of 'bench --records'.

    A cell that several files have from the same machine and version is kept once; what comes from
    different ones stays apart. Shards and cells that are missing are told.

    Exit code 0: all is there; 1: files contradict each other, and both sides are kept; 2: the files
    cannot be read or joined; 3: cells of the plan are missing.
    """

    files: tuple[Path, ...] = option(MISSING, "Files to join.", word="files", metavar="FILE...")
    output: Path = shared.output("File to write; replaced.", MISSING)
    as_json: bool = shared.as_json()
