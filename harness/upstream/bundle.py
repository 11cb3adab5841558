"""Files for framework developers in a reproducer's folder: a script that needs only the framework,
and the text of an issue."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.arrays import ArrayDict, Arrays
from harness.checking import replay
from harness.checking.blame import EQUATIONS
from harness.checking.options import ReduceOptions
from harness.checking.reproducer import Reproducer, bind_sizes, load, pack
from harness.checking.request import Request
from harness.command.outcome import CommandResult
from harness.convert import formats
from harness.convert.formats import Exported, Script
from harness.convert.run import Caller, FormatFault
from harness.convert.source.document import docstring
from harness.convert.source.literals import name_text, text
from harness.errors import HarnessError, UsageError
from harness.files import kinds
from harness.files.atomic import staging, sync_folder, write_whole
from harness.files.user_file import FileFault
from harness.oracle.draw import cotangents
from harness.oracle.tolerance import FLOOR, PRECISION, VOID, K, scales
from harness.oracle.yardstick import Expected, Reference
from harness.output.markdown import fenced
from harness.output.templates import filled
from harness.results.cell import CellResult
from harness.results.findings import Finding
from harness.runtime import plugins
from harness.runtime.labels import backend_of
from harness.runtime.session import Session
from harness.worker.launch import Launch
from harness.worker.programs import run_program

# Write and run a script that shows a difference with only numpy and one framework.

FILE, ARRAYS = "reproduce.py", "reproduce.npz"
# Time limit in seconds, for a script that imports a framework and compiles a model, and for the
# process that writes the model.
PATIENCE = 300.0
# Default limit of a script's resident memory in bytes, including its child processes.
MEMORY = 8 << 30
# If a script agrees in this many processes, it does not reproduce the difference.
RUNS = 3
# At most this many characters of the script's output are stored.
MAX_OUTPUT = 20_000
# Names that the script defines in addition to the model.
SCRIPT_NAMES = frozenset(
    {
        *("sys", "np", "os", "Path", "FOLDER", "ALLOWED", "FILLED"),
        *("run", "fill_freed_memory", "error_of", "main"),
    }
)
# The number of passes in a script. Before three of them, the script fills memory with numbers and
# frees it (``FILLED``).
PASSES = 4
# The script prints this text if a result is right in some passes and wrong in others.
VARIES = " passes on the same numbers"


@dataclass(frozen=True)
class ScriptOutcome:
    """The outcome of running a script. It runs in several processes, one after another, until its
    results differ from the expected results.

    ``code`` is the exit code of the last process, or None if it took too long or used too much
    memory. ``printed`` is its output. ``runs`` is the number of processes; in all of them except
    the last, the results agreed.
    """

    code: int | None
    printed: str
    runs: int = 1


def compose_script(
    title: str,
    framework: str,
    script: Script,
    allowed: Mapping[str, float],
    environment: Mapping[str, str],
) -> str:
    """Return the complete source of a script that shows how the results of a framework differ from
    the expected results.

    ``script`` has the code of the model, ``allowed`` maps the name of a result to its tolerance,
    and ``environment`` has the environment variables to set.

    Raises:
        UsageError: the model uses a name that the script defines.
    """
    taken_names = sorted(_defined_names(script.module) & SCRIPT_NAMES)
    if taken_names:
        raise UsageError(
            f"the model defines the name {taken_names[0]}, which the script defines too"
        )
    lines = [
        f"{title}.",
        "",
        f"Needs numpy and {name_text(framework)} alone, and the files beside it. It prints how far",
        "each result is from the expected one, and exits with 1 if one differs.",
    ]
    return filled(
        "harness.upstream",
        FILE,
        docstring="\n".join(docstring(lines)),
        environment=[(text(name), text(value)) for name, value in environment.items()],
        module=_remove_docstring(script.module),
        allowed=[(text(name), repr(float(limit))) for name, limit in allowed.items()],
        source=script.source,
    )


def _defined_names(module: str) -> set[str]:
    """Return the names that a module's source defines at its top level."""
    names = set()
    for node in ast.parse(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def _remove_docstring(module: str) -> str:
    first, *_ = ast.parse(module).body
    if isinstance(first, ast.Expr):
        module = "\n".join(module.splitlines()[first.end_lineno :])
    return module.strip("\n") + "\n"


def run_until_it_differs(
    folder: Path, python: str, environment: Mapping[str, str], memory: int | None = None
) -> ScriptOutcome:
    """Run the script in ``folder`` in up to :data:`RUNS` new processes, one after another, until
    its results differ. A kernel that reads uninitialised memory may give right results in one
    process by chance, so one process is not enough."""
    for number in range(1, RUNS + 1):
        outcome = replace(run_script(folder, python, environment, memory), runs=number)
        if outcome.code != 0:
            break
    return outcome


def run_script(
    folder: Path, python: str, environment: Mapping[str, str], memory: int | None = None
) -> ScriptOutcome:
    """Run the script in ``folder`` once, in a new process of the interpreter ``python``. A
    supervisor process ends the script after :data:`PATIENCE` seconds, or if its resident memory
    exceeds ``memory`` bytes."""
    # Resolve the path of the interpreter here, because PYTHONPATH may be relative to the folder in
    # which the script runs.
    command = [shutil.which(python) or python, "-P", str(folder / FILE)]
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    process = run_program(command, variables, PATIENCE, memory or MEMORY)
    separator = "\n" if process.cause and process.printed[-1:] not in ("", "\n") else ""
    return ScriptOutcome(process.code, f"{process.printed[-MAX_OUTPUT:]}{separator}{process.cause}")


STEM, ISSUE = "model", "issue.md"
IN_GRADIENT = "gradient."
# Exit codes of processes that a signal has ended, with the name of the signal.
CRASHES: Mapping[int | None, str] = {
    -number: number.name
    for number in signal.Signals
    if number.name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGSEGV")
}


def format_of(backend: str) -> str | None:
    """Return the name of the export format that writes source code for this backend's framework,
    e.g. ``torch``; return None if there is no such format."""
    origin = plugins.available().get(backend_of(backend))
    if origin is None:
        return None
    package = origin.module.rpartition(".")[0]
    for name, origin_of_format in formats.available().items():
        if package and origin_of_format.module.rpartition(".")[0] == package:
            return name
    return None


class Upstream:
    """A context manager for writing reports for framework developers: a script and an issue text,
    in the folder of each reproducer."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._callers: dict[str, Caller] = {}

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *_: object) -> None:
        for caller in self._callers.values():
            caller.worker.close()

    def write(self, folder: Path, result: CellResult) -> list[str]:
        """Write a script and an issue text into a reproducer's folder, and run the script.

        Return lines of text that describe the outcome of the script.

        Raises:
            UsageError: a file cannot be written.
            OracleFault: the oracle ran out of time or memory.
        """
        reproducer = load(folder)
        backend, check = result.cell.backend, reproducer.run.check
        try:
            name = format_of(backend)
            if name is None:
                raise UsageError(f"{backend} has no export format that writes source code")
            files, outcome, layers = self._write_script(folder, result, reproducer, name)
        except (FormatFault, HarnessError) as fault:
            verdict = f"No script that runs without the harness was written: {fault}."
            versions = {backend: result.version or "of unknown version"}
            _write_files(
                folder,
                "an issue",
                {ISSUE: (issue_text(result, check, verdict, versions), kinds.ISSUE)},
            )
            return [f"  no script that runs without the harness: {fault}"]
        # Framework functions that ran in the cell, but that the script does not call.
        called = {EQUATIONS, *(label for key, label in result.layers.items() if key in layers)}
        not_called = list(dict.fromkeys(n for n in result.layers.values() if n not in called))
        verdict = _describe_outcome(outcome, name, not_called)
        source = (folder / FILE).read_text(encoding="utf-8")
        versions = self._callers[backend].versions
        text = issue_text(result, check, verdict, versions, source, outcome.printed, files)
        _write_files(folder, "an issue", {ISSUE: (text, kinds.ISSUE)})
        return [f"  {verdict} (python {folder / FILE}; the issue is {ISSUE})"]

    def _write_script(
        self, folder: Path, result: CellResult, reproducer: Reproducer, name: str
    ) -> tuple[list[str], ScriptOutcome, Collection[str]]:
        """Write the script, and run it. Return three things: lines of text with the names of its
        files, the outcome, and the names of the layers that the script computes by the framework's
        own layers."""
        cell = result.cell
        caller = self._get_caller(cell.backend, name)
        material, along = reproducer.run.material, _random_directions(reproducer)
        # The reproducer's model with its parameters and statistics.
        parameters, statistics = (
            {
                n: np.asarray(a, cell.dtype if a.dtype.kind == "f" else None, order="C")
                for n, a in arrays.items()
            }
            for arrays in (material.parameters, material.statistics)
        )
        programs = (reproducer.training, reproducer.inference)
        exported = Exported(reproducer.training.name, *programs, parameters, statistics)
        expected = _expect_results(reproducer, along)
        with staging(folder / STEM) as new:
            place = new / f"{STEM}{caller.call('suffix')}"
            payload = exported.payload()
            written = caller.call("write", exported=payload, path=str(place))
            files = [Path(file) for file in written if Path(file).suffix != ".py"]
            gradients = {
                n.removeprefix(IN_GRADIENT): a
                for n, a in expected.values.items()
                if n.removeprefix(IN_GRADIENT) in exported.parameters
            }
            script = Script(
                **caller.call("script", exported=payload, path=str(place), gradients=gradients)
            )
            renamed = _rename_results(expected, gradients, script.gradients, cell.dtype)
            environment = self._variables(cell.backend)
            limits = {n: limit for n, (_, limit) in renamed.items()}
            text = compose_script(
                issue_title(result, reproducer.run.check), name, script, limits, environment
            )
            groups = {"inputs": material.inputs, "state": material.state}
            groups["cotangents"] = along if script.gradients else {}
            array_file = pack(
                {**groups, "expected": {n: array for n, (array, _) in renamed.items()}}
            )
            contents = {
                ARRAYS: (array_file, kinds.ARRAYS),
                FILE: (text.encode() + b"\n# " + kinds.EXPORTED + b"\n", kinds.EXPORT),
            }
            _write_files(folder, "a script", contents, files)
        memory, variables = self.request.memory_limit, self._variables(cell.backend)
        python = self._interpreter(cell.backend)
        outcome = run_until_it_differs(folder, python, variables, memory)
        return [ARRAYS, *(file.name for file in files)], outcome, script.layers

    def _get_caller(self, backend: str, name: str) -> Caller:
        if backend not in self._callers:
            self._callers[backend] = Caller(
                name, self._interpreter(backend), PATIENCE, self._variables(backend)
            )
        return self._callers[backend]

    def _interpreter(self, backend: str) -> str:
        return self.request.pythons.get(backend, sys.executable)

    def _variables(self, backend: str) -> dict[str, str]:
        return {
            **plugins.environment(backend_of(backend)),
            **self.request.environment.get(backend, {}),
        }


def issue_title(result: CellResult, check: str) -> str:
    """Return the title of an issue, which names the layer at fault, the tensor with the largest
    error, and this error."""
    cell = result.cell
    keys = result.blamed_layers or result.wrong_layers or result.named_layers
    if result.blame and result.blame.who not in ("layer", "spec"):
        keys = ()
    function_names = [n for key, n in result.layers.items() if n != EQUATIONS and key in keys]
    functions = ", ".join(dict.fromkeys(function_names)) or cell.backend
    finding = _find_finding(result, check)
    worst = finding.worst if finding else None
    difference = f"{worst.name} off by {worst.error:.1e}{worst.unit}" if worst else f"{check} off"
    return f"{functions}: {difference} in {cell.dtype}"


def issue_text(
    result: CellResult,
    check: str,
    verdict: str,
    versions: Mapping[str, str],
    source: str = "",
    printed: str = "",
    files: Sequence[str] = (),
) -> bytes:
    """Return an issue in Markdown: title, versions, script, expected and actual values. ``verdict``
    is a text that says whether the framework is at fault. ``files`` are the files that the script
    reads."""
    finding = _find_finding(result, check)
    text = filled(
        "harness.upstream",
        ISSUE,
        mark=kinds.ISSUED.decode().rstrip("\n"),
        title=issue_title(result, check),
        verdict=verdict,
        blame=result.blame,
        versions=versions,
        cell=result.cell,
        location=result.location,
        detail=finding.detail if finding else "",
        files=files,
        script="\n".join(fenced(source, "python")) if source else "",
        printed="\n".join(fenced(printed, "text")) if printed else "",
    )
    return text.encode("utf-8", "replace")


def _find_finding(result: CellResult, check: str) -> Finding | None:
    return next((f for f in result.findings if f.check == check), None)


def _write_files(
    folder: Path,
    what: str,
    contents: Mapping[str, tuple[bytes, kinds.FileKind]],
    moved_files: Sequence[Path] = (),
) -> None:
    """Write files into a folder: ``contents`` maps a file name to its content and kind. Also move
    the files ``moved_files`` into the folder. An existing file of another kind is not overwritten.
    ``what`` names the files in error messages."""
    try:
        for file in moved_files:
            kinds.mark_export(file)
            kinds.check_kind(folder / file.name, kinds.EXPORT)
        for name, (_, kind) in contents.items():
            kinds.check_kind(folder / name, kind)
        for file in moved_files:
            os.replace(file, folder / file.name)
        for name, (content, _) in contents.items():
            write_whole(folder / name, content)
        sync_folder(folder)
    except (OSError, FileFault) as error:
        raise UsageError(f"cannot write {what} to {folder}: {error}") from None


def _random_directions(reproducer: Reproducer) -> ArrayDict:
    """Return a random cotangent for each output and new state: an array of the same shape. The
    script compares the gradients of the sum of results times cotangents."""
    sizes = bind_sizes(reproducer.inference, reproducer.run.material)
    return cotangents(reproducer.inference, sizes.get("batch", 1), sizes.get("time", 1), 0)


def _expect_results(reproducer: Reproducer, along: ArrayDict) -> Expected:
    """Return the oracle's results: of inference, and of the gradients of the sum of results times
    ``along`` (an array for each result)."""
    material = reproducer.run.material

    def run_session(session: Session) -> list[Arrays]:
        session.load(material.parameters, material.statistics)
        results, gradients = session.gradients(
            "inference", material.inputs, material.state, {}, along
        )
        returned = {n: a for n, a in results.items() if n.startswith(("output.", "state."))}
        return [returned | {f"{IN_GRADIENT}{n}": g for n, g in gradients.items()}]

    return Reference(reproducer.training, reproducer.inference).expect(run_session)


def _rename_results(
    expected: Expected, gradients: Arrays, script_gradients: Arrays, dtype: str
) -> dict[str, tuple[Any, float]]:
    """Return a dictionary from the names that the script uses to pairs (expected array, tolerance).
    Arrays whose expected values are only rounding errors are left out."""
    scale, noise = scales(expected.values), expected.noise(dtype)
    limits = {
        name: K * max(noise[name], FLOOR * PRECISION[dtype]) * scale[name]
        for name in expected.values
        if K * max(noise[name], FLOOR * PRECISION[dtype]) < VOID
    }
    renamed = {
        name: (array, limits[name])
        for name, array in expected.values.items()
        if name in limits and not name.startswith(IN_GRADIENT)
    }
    # A framework's tensor may combine several gradients; it gets the largest of their tolerances.
    gradient_limits = [
        limits[f"{IN_GRADIENT}{n}"] for n in gradients if f"{IN_GRADIENT}{n}" in limits
    ]
    for name, array in script_gradients.items() if gradient_limits else ():
        renamed[f"{IN_GRADIENT}{name}"] = (array, max(gradient_limits))
    return renamed


def _describe_outcome(outcome: ScriptOutcome, name: str, not_called: Sequence[str]) -> str:
    """Return a text that says what the outcome of the script proves.

    Even if the script's results agree, the fault may be in the framework or in the plugin. The text
    then says so.
    """
    if outcome.code == 1 and "results differ" in outcome.printed:
        at_fault = f"The script reproduces it with {name} alone: the framework's layer is at fault."
        if VARIES in outcome.printed:
            at_fault += (
                " Some passes on the same numbers agree: the result depends on something else, "
                "such as uninitialised memory."
            )
        return at_fault
    if outcome.code in CRASHES:
        crash = CRASHES[outcome.code]
        return f"The script, with {name} alone, crashes with {crash}: the framework is at fault."
    if outcome.code == 0:
        runs = f"{outcome.runs} runs of {PASSES} passes"
        not_called_text = f" It does not call {', '.join(not_called)}." if not_called else ""
        return (
            f"The script, with {name} alone, did not reproduce it in {runs}. This clears neither "
            f"{name} nor the plugin.{not_called_text}"
        )
    return "The script could not be run here; its output is below."


def write_script_and_issue(launch: Launch, folder: Path, result: CellResult) -> list[str]:
    """Write a script and an issue text into the folder of one reproducer, and run the script in the
    worker's interpreter. Return lines of text that describe the outcome."""
    name, environment = launch.backend, dict(launch.environment)
    request = Request(pythons={name: launch.python}, environment={name: environment})
    with Upstream(request) as upstream:
        return upstream.write(folder, result)


def run_reduce(options: ReduceOptions) -> CommandResult:
    """Run ``harness reduce``: shrink a reproducer, and write a script and an issue text into the
    new folder.

    Raises:
        HarnessError: the folder has no reproducer that differs, or the backend cannot be run.
    """
    return replay.run_reduce(options, write_script_and_issue)
