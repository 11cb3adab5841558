"""The commands ``export`` and ``import``: their output and exit codes."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from harness.command.declared import build
from harness.command.options import interpreter_of
from harness.command.outcome import CommandResult
from harness.convert.agreement import Agreement
from harness.convert.request import Export, ExportOptions, Import, ImportOptions
from harness.convert.run import Exporting, export, import_
from harness.errors import EXIT_FAILED, EXIT_PASSED
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


def run_export(options: ExportOptions) -> CommandResult:
    """Run the command ``harness export``. The exit code is 1 if the outputs of the exported model
    differ from the oracle's.

    Raises:
        FormatFault: the format could not be run.
    """
    request = build(Export, {**vars(options), "python": _python(options)})
    with Progress(console(error=True), "exporting") as bar:
        exporting = export(request, _CallLines(bar, request.format_))
    code = EXIT_PASSED if exporting.agreement.agrees else EXIT_FAILED
    return CommandResult(_document(request, exporting), _text(request, exporting), code)


def run_import(options: ImportOptions) -> CommandResult:
    """Run the command ``harness import``: read weights from a framework's file.

    Raises:
        FormatFault: the format could not be run.
    """
    request = build(Import, {**vars(options), "python": _python(options)})
    with Progress(console(error=True), "importing") as bar:
        weights = import_(request, _CallLines(bar, request.format_))
    count = sum(a.size for a in (*weights.parameters.values(), *weights.statistics.values()))
    data = {"spec": weights.spec, "sizes": dict(weights.sizes), "parameters": count}
    text = f"{weights.spec}: {count:,} parameters and statistics from {displayed(request.file)}"
    return CommandResult(
        {**data, "weights": str(request.weights), **weights.history},
        f"{text}\nweights: {request.weights}",
    )


def _python(options: ExportOptions | ImportOptions) -> str:
    return interpreter_of(options.python, options.format_, sys.executable)


def _text(request: Export, exporting: Exporting) -> str:
    agreement = exporting.agreement
    head = f"{exporting.spec} as {request.format_}, {exporting.dtype}: "
    if not agreement.comparisons:
        return f"{head}cannot be verified: {agreement.worst}\nnothing was written"
    if not agreement.agrees:
        doubt = f"{exporting.doubt}\n" if exporting.doubt else ""
        return f"{head}differ: {agreement.worst}\n{doubt}nothing was written"
    files = ", ".join(str(file) for file in exporting.files)
    worst = f"{agreement.worst.name}, {agreement.worst.ratio:.3g} times the yardstick"
    return (
        f"{head}agree in {agreement.digits:.1f} digits with the oracle ({agreement.comparisons} "
        f"comparisons, worst {worst})\nwrote {files}"
    )


def _verdict(agreement: Agreement) -> str:
    if not agreement.comparisons:
        return "not-applicable"
    return "agree" if agreement.agrees else "differ"


def _document(request: Export, exporting: Exporting) -> dict[str, object]:
    worst = exporting.agreement.worst
    error = worst.error if math.isfinite(worst.error) else None
    return {
        "spec": exporting.spec,
        "format": request.format_,
        "dtype": exporting.dtype,
        "verdict": _verdict(exporting.agreement),
        "digits": round(exporting.agreement.digits, 2),
        "comparisons": exporting.agreement.comparisons,
        "worst": {"name": worst.name, "error": error, "tolerance": worst.tolerance},
        "detail": str(worst),
        "doubt": exporting.doubt,
        "files": [str(Path(file)) for file in exporting.files],
        "versions": dict(exporting.versions),
    }
