"""The command ``port``: its output, files and exit code."""

from __future__ import annotations

from typing import Any

from harness.command.declared import build
from harness.command.outcome import CommandResult
from harness.errors import EXIT_FAILED, EXIT_PASSED, UsageError, several
from harness.output.printing import console
from harness.output.progress import Progress
from harness.porting.list_operators import list_operators
from harness.porting.options import PortOptions, PortRequest
from harness.porting.proof import Ported, result_digits
from harness.porting.run import port


def run_port(options: PortOptions) -> CommandResult:
    """Run the command ``harness port``. The exit code is 1 if a comparison differs.

    Raises:
        UsageError: the model is missing or cannot be ported.
        CouldNotRun: a process failed.
    """
    if options.operators:
        return _list_operators(options)
    if not options.model:
        raise UsageError("name a model, such as net.py:Net; --operators lists what can be ported")
    if options.model.endswith(".py"):
        raise UsageError(f"{options.model} is a file: name the model in it, such as net.py:Net")
    request = build(PortRequest, vars(options))
    with Progress(console(error=True), "porting") as bar:
        ported = port(request, bar.step)
    code = EXIT_PASSED if ported.proved else EXIT_FAILED
    return CommandResult(_data(request, ported), _text(request, ported), code)


def _list_operators(options: PortOptions) -> CommandResult:
    with Progress(console(error=True), "operators") as bar:
        choice = options.backend, options.python, options.timeout
        by_framework = list_operators(*choice, bar.step)
    lines = []
    for name, operators in by_framework.items():
        lines += [f"{name}, {several(len(operators), 'operator')}:", *(f"  {o}" for o in operators)]
    return CommandResult({"operators": by_framework}, "\n".join(lines))


def _data(request: PortRequest, ported: Ported) -> dict[str, Any]:
    return {
        "spec": ported.name,
        "model": ported.label,
        "proved": ported.proved,
        "folder": str(request.output) if ported.written else None,
        "definitions": list(ported.spec.definitions),
        "lines": len(ported.spec.text.splitlines()),
        "against": {r.cell.dtype: result_digits(r) for r in ported.against},
        "backends": {f"{r.cell.backend} {r.cell.dtype}": result_digits(r) for r in ported.backends},
        "exports": {n: round(e.agreement.digits, 1) for n, e in ported.exports.items()},
        "gradients": {
            n: round(e.gradients.digits, 1) for n, e in ported.exports.items() if e.gradients
        },
        "remarks": list(ported.remarks),
        "problems": list(ported.problems),
    }


def _text(request: PortRequest, ported: Ported) -> str:
    lines = [*ported.proof_lines()]
    if ported.written:
        lines.append(f"written to {request.output}: {', '.join(ported.written)}")
    else:
        lines.append("nothing is written, because something differs; --force writes the files")
    return "\n".join([*ported.problems, *ported.remarks, *lines])
