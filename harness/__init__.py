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

TYPE_CHECKING = False  # typing's own, without the import: every command starts here
if TYPE_CHECKING:
    from harness.api.checking import cells as cells
    from harness.api.checking import check as check
    from harness.api.checking import run_cell as run_cell
    from harness.api.models import load as load
    from harness.api.models import run as run
    from harness.api.timing import bench as bench
    from harness.api.timing import compare as compare
    from harness.api.training import generate as generate
    from harness.api.training import train as train
    from harness.checking.task import Task as Task
    from harness.checking.task import Workers as Workers

    __version__: str

__all__ = ["bench", "cells", "check", "compare", "generate", "load", "run", "run_cell", "train"]


_CLASSES = ("Task", "Workers")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_CLASSES, "__version__"})


def __getattr__(name: str) -> object:
    """Return a function, a class or the version when it is first asked for.

    Raises:
        AttributeError: anything else is asked for.
    """
    from importlib import import_module, metadata

    if name == "__version__":
        return metadata.version("backend-comparison-harness")
    # Every command and every worker starts here, so that a module is imported when it is used. Its
    # name is written out: the code that a result depends on is found by reading.
    if name in ("cells", "check", "run_cell"):
        module = import_module("harness.api.checking")
    elif name in ("load", "run"):
        module = import_module("harness.api.models")
    elif name in ("bench", "compare"):
        module = import_module("harness.api.timing")
    elif name in ("generate", "train"):
        module = import_module("harness.api.training")
    elif name in _CLASSES:
        module = import_module("harness.checking.task")
    else:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    found = globals()[name] = getattr(module, name)
    return found
