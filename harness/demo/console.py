"""The command ``harness demo``: a check, and the text before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.checking.console import PrintOptions, run_check
from harness.checking.request import Request
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
LIKED = ("torch", "jax", "keras")


def run_demo(asked: DemoOptions) -> int:
    """Check one model on numpy and one framework, and return the exit code.

    With a planted fault, a reproducer is written to the folder :data:`FAILURES`.

    Raises:
        UsageError: there is no such backend, or the reproducer's folder cannot be written.
    """
    request = request_of(asked)
    broken = request.backends[-1] if asked.broken else ""
    if not asked.as_json:
        _introduce(request.backends, broken)
    shown = PrintOptions(as_json=asked.as_json, reproducers=FAILURES if broken else None)
    code = run_check(request, ["demo"], shown)
    if not asked.as_json:
        _next(broken)
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


def _introduce(backends: Sequence[str], broken: str) -> None:
    tell(
        f"The model {SPEC} (an embedding, a GRU, a dense layer) on {' and '.join(backends)}, "
        "against the oracle: the same equations in float64. The table shows digits of agreement; "
        "float32 has some 7, and each number is held to a tolerance that is measured, tensor by "
        "tensor."
    )
    if broken:
        one, two = GATES
        tell(f"A fault is planted in {broken}: {one} and {two} of the GRU are exchanged.")
    tell("")


def _next(broken: str) -> None:
    """Print the commands to try after the demo; ``broken`` names the planted fault, if any."""
    tell("")
    if broken:
        tell("The reproducer agrees when it runs again: only this demo plants the fault.")
        tell("Keep failures of your own:   harness check --reproducers failures")
        tell(f"Look for the cause of one:   harness localise MODEL.yaml --backend {broken}")
    else:
        tell("See a fault found:           harness demo --break")
    tell("Check fast.ai's Lesson 6:    harness check")
    tell("Make a page to send:         harness check --html report.html")
    tell("Read a model of your own:    harness explain MODEL.yaml")
    tell("Check it:                    harness check MODEL.yaml")
