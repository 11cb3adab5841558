"""The commands ``export`` and ``import``: what they print, and their exit codes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from harness.convert.request import Export, Import
from harness.convert.run import Agreement, Exporting, FormatFault, export, import_
from harness.files.user_file import displayed
from harness.output.printing import console, say, tell
from harness.output.progress import Progress
from harness.worker.remote import with_trace

Asked = TypeVar("Asked", Export, Import)
Made = TypeVar("Made")
# By verb, what a format's process does. An export has two sizes of inputs to run at.
STEPS = {
    "exporting": ("suffix", "write", "outputs", "outputs"),
    "importing": ("read",),
}
WORDS = {
    "suffix": "starting {format}",
    "write": "{format} writes",
    "outputs": "{format} runs what was written, and so does the oracle",
    "read": "{format} starts and reads the file",
}


class _CallLines:
    """Shows each call as it is made."""

    def __init__(self, bar: Progress, format_: str) -> None:
        self.bar, self.format, self.made = bar, format_, 0
        bar.plan(len(STEPS[bar.what]), forecast=False)

    def __call__(self, verb: str) -> None:
        if verb not in WORDS:  # it takes no time
            return
        total = len(STEPS[self.bar.what])
        self.bar.at(self.made, f"{self.made + 1}/{total}")
        self.made += 1
        self.bar.step(WORDS[verb].format(format=self.format))


def _watched(
    what: str, request: Asked, work: Callable[[Asked, Callable[[str], None]], Made]
) -> Made | None:
    """What comes of a request, its calls shown as they are made; None, and the fault is told,
    where the format fails."""
    try:
        with Progress(console(error=True), what) as bar:
            return work(request, _CallLines(bar, request.format_))
    except FormatFault as fault:
        tell(with_trace(str(fault), fault.traceback), error=True)
        return None


def run_export(request: Export, as_json: bool) -> int:
    """Export, and print what came of it; returns the exit code."""
    made = _watched("exporting", request, export)
    if made is None:
        return 3
    if as_json:
        say(json.dumps(_document(request, made)))
    else:
        tell(_text(request, made))
    return 0 if made.agreement.agrees else 1


def run_import(request: Import, as_json: bool) -> int:
    """Import, and print what came of it; returns the exit code."""
    made = _watched("importing", request, import_)
    if made is None:
        return 3
    count = sum(a.size for a in (*made.parameters.values(), *made.statistics.values()))
    if as_json:
        told = {"spec": made.spec, "sizes": dict(made.sizes), "parameters": count}
        say(json.dumps({**told, "weights": str(request.weights), **made.history}))
    else:
        tell(f"{made.spec}: {count:,} parameters and statistics from {displayed(request.file)}")
        tell(f"weights: {request.weights}")
    return 0


def _text(request: Export, made: Exporting) -> str:
    found = made.agreement
    head = f"{made.spec} as {request.format_}, {made.dtype}: "
    if not found.comparisons:
        return f"{head}nobody can tell whether it is right: {found.worst}\nnothing was written"
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
