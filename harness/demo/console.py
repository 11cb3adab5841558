"""The command ``harness demo``: a check, and the text before and after it."""

from __future__ import annotations

from pathlib import Path

from harness.checking.console import run_check
from harness.checking.options import CheckOptions
from harness.checking.request import Request
from harness.command.declared import asked_for
from harness.demo.broken import GATES, RIGHT
from harness.demo.options import DemoOptions
from harness.environments.columns import choose
from harness.output.printing import tell
from harness.output.templates import filled
from harness.worker.launch import SERVICE

SPEC = "lesson6/keras_gru"
SIZES = {"hidden": 16, "vocab": 20}
CHECKS = ("values", "training-sgd", "batch-independence", "causality")
# The reproducer of a planted fault is written to this folder, in the current folder.
FAILURES = Path("harness-demo")
# The frameworks that the demo prefers; the framework that starts fastest comes first.
LIKED = ("torch", "jax", "keras")


def run_demo(asked: DemoOptions) -> int:
    """Check one model on numpy and one framework, and return the exit code.

    With a planted fault, a reproducer is written to the folder :data:`FAILURES`.

    Raises:
        UsageError: there is no such backend, or the reproducer's folder cannot be written.
    """
    request = request_of(asked)
    broken = request.backends[-1] if asked.broken else ""
    texts = {"spec": SPEC, "backends": request.backends, "broken": broken, "gates": GATES}
    if not asked.as_json:
        tell(filled("harness.demo", "before.txt", **texts))
    reproducers = FAILURES if broken else None
    shown = asked_for(CheckOptions, {"as_json": asked.as_json, "reproducers": reproducers})
    code = run_check(request, ["demo"], shown)
    if not asked.as_json:
        tell(filled("harness.demo", "after.txt", **texts).removesuffix("\n"))
    return code


def request_of(asked: DemoOptions) -> Request:
    """Return the request of the check that the demo runs.

    Raises:
        UsageError: there is no such backend.
    """
    backend = asked.backend
    if backend is None:
        able = choose(()).names
        backend = next((name for name in LIKED if name in able), RIGHT)
    columns = choose((RIGHT, backend))
    return Request(
        (SPEC,),
        columns.names,
        dtypes=("float32",),
        sizes=SIZES,
        pythons=columns.pythons,
        checks=CHECKS,
        service="harness.demo.broken:handler" if asked.broken else SERVICE,
    )
