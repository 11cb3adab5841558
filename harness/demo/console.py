"""What ``demo`` runs, and what it says around it."""

from __future__ import annotations

from harness.checking.console import run_check
from harness.checking.request import Request
from harness.demo.broken import GATES, RIGHT
from harness.environments.columns import choose
from harness.output.printing import tell
from harness.worker.launch import SERVICE

SPEC = "lesson6/keras_gru"
SIZES = {"hidden": 16, "vocab": 20}
CHECKS = ("values", "training-sgd", "batch-independence", "causality")
# In this order, by how soon they start.
LIKED = ("torch", "jax", "keras")


def run_demo(broken: bool, backend: str | None) -> int:
    """Check one model on numpy and a framework; returns the exit code.

    Raises:
        UsageError: there is no such backend.
    """
    columns = choose((RIGHT, backend or _first()))
    backends, other = columns.names, columns.names[-1]
    tell(
        f"The model {SPEC} (an embedding, a GRU, a dense layer) on {' and '.join(backends)}, "
        "against the oracle: the same equations in float64. The table shows digits of agreement; "
        "float32 has some 7, and each number is held to a tolerance that is measured, tensor by "
        "tensor."
    )
    if broken:
        one, two = GATES
        tell(f"A fault is planted in {other}: {one} and {two} of the GRU are exchanged.")
    tell("")
    request = Request(
        (SPEC,),
        backends,
        dtypes=("float32",),
        sizes=SIZES,
        pythons=columns.pythons,
        checks=CHECKS,
        service="harness.demo.broken:handler" if broken else SERVICE,
    )
    code = run_check(request, ["demo"])
    tell("")
    if not broken:
        tell("See a fault found:           harness demo --break")
    tell("Check all of Lesson 6:       harness check")
    tell("Make a page to send:         harness check --html report.html")
    tell("Read a model of your own:    harness explain MODEL.yaml")
    tell("Check it:                    harness check MODEL.yaml")
    return code


def _first() -> str:
    able = choose(()).names
    return next((name for name in LIKED if name in able), RIGHT)
