"""The command ``harness demo``: it prints an introduction, runs a check, and suggests the next
commands."""

from __future__ import annotations

from pathlib import Path

from harness.checking.console import run_check
from harness.checking.options import CheckOptions
from harness.checking.request import Request
from harness.command.declared import make_options
from harness.demo.broken import GATES, RIGHT
from harness.demo.options import DemoOptions
from harness.environments.columns import choose
from harness.output.printing import tell
from harness.worker.launch import SERVICE

SPEC = "lesson6/keras_gru"
SIZES = {"hidden": 16, "vocab": 20}
CHECKS = ("values", "training-sgd", "batch-independence", "causality")
# The reproducer of a planted fault is written to this folder, in the current folder.
FAILURES = Path("harness-demo")
# The frameworks that the demo prefers; the framework that starts fastest comes first.
PREFERRED = ("torch", "jax", "keras")


def run_demo(options: DemoOptions) -> int:
    """Check one model on numpy and one framework, and return the exit code.

    With the option ``--break``, the check writes a reproducer of the intentional fault to the
    folder :data:`FAILURES`.

    Raises:
        UsageError: there is no such backend, or the reproducer's folder cannot be written.
    """
    # Jinja2 takes a tenth of a second, and harness.check imports this module.
    from harness.output.templates import filled

    request = demo_request(options)
    broken_backend = request.backends[-1] if options.broken else ""
    template_values = {
        "spec": SPEC,
        "backends": request.backends,
        "broken": broken_backend,
        "gates": GATES,
    }
    if not options.as_json:
        tell(filled("harness.demo", "before.txt", **template_values))
    reproducers = FAILURES if broken_backend else None
    check_options = make_options(
        CheckOptions, {"as_json": options.as_json, "reproducers": reproducers}
    )
    code = run_check(request, ["demo"], check_options)
    if not options.as_json:
        tell(filled("harness.demo", "after.txt", **template_values).removesuffix("\n"))
    return code


def demo_request(options: DemoOptions) -> Request:
    """Return the request of the check that the demo runs.

    Raises:
        UsageError: there is no such backend.
    """
    backend = options.backend
    if backend is None:
        installed = choose(()).names
        backend = next((name for name in PREFERRED if name in installed), RIGHT)
    columns = choose((RIGHT, backend))
    return Request(
        (SPEC,),
        columns.names,
        dtypes=("float32",),
        sizes=SIZES,
        pythons=columns.pythons,
        checks=CHECKS,
        service="harness.demo.broken:handler" if options.broken else SERVICE,
    )
