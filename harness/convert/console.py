"""The commands ``export`` and ``import``: their output and exit codes."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from harness.command.declared import build
from harness.command.options import interpreter_of
from harness.command.outcome import CommandResult
from harness.convert.request import Export, ExportOptions, Import, ImportOptions
from harness.convert.run import Agreement, Exporting, export, import_
from harness.files.user_file import displayed
from harness.output.printing import console
from harness.output.progress import Progress

# The calls to a format's process, by command. An export runs the model on inputs of two sizes.
STEPS = {
    "exporting": ("suffix", "write", "outputs", "outputs"),
    "importing": ("read",),
}
WORDS = {
    "suffix": "starting {format}",
    "write": "{format} writes the files",
    "outputs": "{format} and the oracle run the exported model",
    "read": "{format} starts and reads the file",
}


class _CallLines:
    def __init__(self, bar: Progress, format_: str) -> None:
        self.bar, self.format, self.made = bar, format_, 0
        bar.plan(len(STEPS[bar.what]), forecast=False)

    def __call__(self, verb: str) -> None:
        if verb not in WORDS:  # a fast call
            return
        total = len(STEPS[self.bar.what])
        self.bar.at(self.made, f"{self.made + 1}/{total}")
        self.made += 1
        self.bar.step(WORDS[verb].format(format=self.format))


def run_export(asked: ExportOptions) -> CommandResult:
    """Export a model; the exit code is 1 if the outputs differ from the oracle's.

    Raises:
        FormatFault: the format could not be run.
    """
    request = build(Export, {**vars(asked), "python": _python(asked)})
    with Progress(console(error=True), "exporting") as bar:
        made = export(request, _CallLines(bar, request.format_))
    code = 0 if made.agreement.agrees else 1
    return CommandResult(_document(request, made), _text(request, made), code)


def run_import(asked: ImportOptions) -> CommandResult:
    """Import weights from a framework's file.

    Raises:
        FormatFault: the format could not be run.
    """
    request = build(Import, {**vars(asked), "python": _python(asked)})
    with Progress(console(error=True), "importing") as bar:
        made = import_(request, _CallLines(bar, request.format_))
    count = sum(a.size for a in (*made.parameters.values(), *made.statistics.values()))
    data = {"spec": made.spec, "sizes": dict(made.sizes), "parameters": count}
    text = f"{made.spec}: {count:,} parameters and statistics from {displayed(request.file)}"
    return CommandResult(
        {**data, "weights": str(request.weights), **made.history},
        f"{text}\nweights: {request.weights}",
    )


def _python(asked: ExportOptions | ImportOptions) -> str:
    return interpreter_of(asked.python, asked.format_, sys.executable)


def _text(request: Export, made: Exporting) -> str:
    found = made.agreement
    head = f"{made.spec} as {request.format_}, {made.dtype}: "
    if not found.comparisons:
        return f"{head}cannot be verified: {found.worst}\nnothing was written"
    if not found.agrees:
        doubt = f"{made.doubt}\n" if made.doubt else ""
        return f"{head}differ: {found.worst}\n{doubt}nothing was written"
    files = ", ".join(str(file) for file in made.files)
    worst = f"{found.worst.name}, {found.worst.ratio:.3g} times the yardstick"
    return (
        f"{head}agree in {found.digits:.1f} digits with the oracle ({found.comparisons} "
        f"comparisons, worst {worst})\nwrote {files}"
    )


def _verdict(found: Agreement) -> str:
    if not found.comparisons:
        return "not-applicable"
    return "agree" if found.agrees else "differ"


def _document(request: Export, made: Exporting) -> dict[str, object]:
    worst = made.agreement.worst
    error = worst.error if math.isfinite(worst.error) else None
    return {
        "spec": made.spec,
        "format": request.format_,
        "dtype": made.dtype,
        "verdict": _verdict(made.agreement),
        "digits": round(made.agreement.digits, 2),
        "comparisons": made.agreement.comparisons,
        "worst": {"name": worst.name, "error": error, "tolerance": worst.tolerance},
        "detail": str(worst),
        "doubt": made.doubt,
        "files": [str(Path(file)) for file in made.files],
        "versions": dict(made.versions),
    }
