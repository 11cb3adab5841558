"""The commands ``export`` and ``import``. What they need is imported when they are run."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from harness.command.declared import build, takes
from harness.command.interrupts import stoppable
from harness.command.options import numbers, process_of
from harness.convert.request import Export, ExportOptions, Import, ImportOptions


@takes(ExportOptions)
def export(spec: str, **given: Any) -> None:
    """Write SPEC with its weights as a framework's user expects it.

    The files are run by that framework alone, and kept if their outputs agree with the oracle's.

    Exit code 0: they agree; 1: they differ, and nothing was written; 2: wrong usage or a wrong
    file; 3: the format could not be run.
    """
    from harness.convert.console import run_export

    python, _ = process_of({"python": given["python"]}, given["format_"], sys.executable)
    request = build(Export, {**given, "spec": spec, "python": python})
    sys.exit(stoppable(partial(run_export, request, given["as_json"])))


@takes(ImportOptions)
def import_(spec: str, file: Path, **given: Any) -> None:
    """Make weights of SPEC from FILE, such as a state_dict or a .keras file.

    Exit code 0: done; 2: wrong usage or a wrong file; 3: the format could not be run.
    """
    from harness.convert.console import run_import

    python, _ = process_of({"python": given["python"]}, given["format_"], sys.executable)
    sizes = numbers(given["sizes"])
    request = build(Import, {**given, "spec": spec, "file": file, "sizes": sizes, "python": python})
    sys.exit(stoppable(partial(run_import, request, given["as_json"])))
