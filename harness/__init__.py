"""Compare how frameworks run one model, which is declared as data and checked by an oracle.

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

TYPE_CHECKING = False  # like typing.TYPE_CHECKING without the import: every command starts here
if TYPE_CHECKING:
    from harness.api.checking import cells as cells
    from harness.api.checking import check as check
    from harness.api.checking import run_cell as run_cell
    from harness.api.checking import run_demo as run_demo
    from harness.api.commands import cache as cache
    from harness.api.commands import differences as differences
    from harness.api.commands import env as env
    from harness.api.commands import explain as explain
    from harness.api.commands import export as export
    from harness.api.commands import import_ as import_
    from harness.api.commands import list_ as list_
    from harness.api.commands import localise as localise
    from harness.api.commands import merge as merge
    from harness.api.commands import new_backend as new_backend
    from harness.api.commands import port as port
    from harness.api.commands import reduce as reduce
    from harness.api.commands import replay as replay
    from harness.api.commands import schema as schema
    from harness.api.commands import upgrade as upgrade
    from harness.api.commands import write_report as write_report
    from harness.api.comparison import compare as compare
    from harness.api.models import load as load
    from harness.api.models import run as run
    from harness.api.timing import bench as bench
    from harness.api.training import generate as generate
    from harness.api.training import train as train
    from harness.checking.task import Task as Task
    from harness.checking.task import Workers as Workers

    __version__: str

_COMMANDS = (
    *("cache", "differences", "env", "explain", "export", "import_", "list_", "localise", "merge"),
    *("new_backend", "port", "reduce", "replay", "schema", "upgrade", "write_report"),
)
__all__ = [
    *("bench", "cache", "cells", "check", "compare", "differences", "env", "explain", "export"),
    *(
        "generate",
        "import_",
        "list_",
        "load",
        "localise",
        "merge",
        "new_backend",
        "port",
        "reduce",
        "replay",
        "run",
    ),
    *("run_cell", "run_demo", "schema", "train", "upgrade", "write_report"),
]
_CLASSES = ("Task", "Workers")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_CLASSES, "__version__"})


def __getattr__(name: str) -> object:
    """Import and return an attribute of the package (a function, class or version) at first use.

    Raises:
        AttributeError: the package has no attribute of that name.
    """
    from importlib import import_module, metadata

    if name == "__version__":
        return metadata.version("backend-comparison-harness")
    # Every command and every worker starts here, so modules are imported at their first use. Their
    # names are written out, because the search for the code behind a result reads this source.
    if name in ("cells", "check", "run_cell", "run_demo"):
        module = import_module("harness.api.checking")
    elif name in ("load", "run"):
        module = import_module("harness.api.models")
    elif name == "bench":
        module = import_module("harness.api.timing")
    elif name == "compare":
        module = import_module("harness.api.comparison")
    elif name in ("generate", "train"):
        module = import_module("harness.api.training")
    elif name in _COMMANDS:
        module = import_module("harness.api.commands")
    elif name in _CLASSES:
        module = import_module("harness.checking.task")
    else:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    attribute = globals()[name] = getattr(module, name)
    return attribute
