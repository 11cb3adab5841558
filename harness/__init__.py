"""Compare how frameworks run one model: declared as data, checked against a float64 oracle.

>>> import harness
>>> spec = harness.load("lesson6/simple_rnn")
>>> report = harness.check("lesson6/simple_rnn", backends="numpy", dtypes="float64")
>>> report.exit_code
0
>>> characters = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]
>>> result = harness.run("lesson6/simple_rnn", "numpy", inputs={"chars": characters},
...                      want="outputs")
>>> result.outputs["logits"].shape
(2, 86)
"""

from __future__ import annotations

from harness.api.checking import cells, check, run_cell
from harness.api.models import load, run
from harness.api.timing import bench, compare
from harness.api.training import generate, train

TYPE_CHECKING = False  # typing's own, without the import: every command starts here
if TYPE_CHECKING:
    from harness.checking.task import Task as Task
    from harness.checking.task import Workers as Workers

    __version__: str

__all__ = ["bench", "cells", "check", "compare", "generate", "load", "run", "run_cell", "train"]


def __getattr__(name: str) -> object:
    """The version of what is installed, and the classes: looked up when they are asked for.

    Raises:
        AttributeError: anything else is asked for.
    """
    if name in ("Task", "Workers"):
        from harness.checking import task

        return getattr(task, name)
    if name != "__version__":
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    from importlib.metadata import version

    return version("backend-comparison-harness")
