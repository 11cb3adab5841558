"""``harness.load`` and ``harness.run``: load a model, and run a single pass of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from harness.api import arguments
from harness.api.arguments import takes_options
from harness.command.declared import build
from harness.files.forms import plain
from harness.given.files import gather
from harness.given.options import PassOptions, Settings
from harness.given.run import WANTED, PassResult, arrays_of, document, run_once, text_of
from harness.language.model import Spec, load_spec
from harness.output.notebook import frame, html_table
from harness.output.printing import shown

if TYPE_CHECKING:
    from os import PathLike

    from pandas import DataFrame

    from harness.api.arguments import Folders
    from harness.api.keywords import RunKeywords


class RunResult(PassResult):
    """The results of one pass of a model, as returned by :func:`run`."""

    def __repr__(self) -> str:
        groups = ("outputs", "state", "statistics", "metrics", "gradients")
        sizes = {group: len(getattr(self, group)) for group in groups}
        parts = [f"{group} {count}" for group, count in sizes.items() if count]
        parts += [] if self.loss is None else [f"loss {self.loss:.6g}"]
        return f"<RunResult: {', '.join(parts)}>"

    def json(self) -> Any:
        """Return what ``harness run --json`` prints, as lists and dictionaries."""
        return plain(document(self, arrays_of(self)))

    def __str__(self) -> str:
        """Return the text that ``harness run`` prints: a line for each array."""
        return shown(text_of(self, arrays_of(self)))

    def _repr_html_(self) -> str:
        rows = []
        for name, array in arrays_of(self).items():
            shape, value = "", f"{float(array):.9g}" if not array.shape else ""
            if array.shape:
                shape = " x ".join(map(str, array.shape))
            rows.append([name, shape, str(array.dtype), value])
        paths = ", ".join(f"{layer}: {path}" for layer, path in self.paths.items())
        sizes = ", ".join(f"{name} {size}" for name, size in self.sizes.items())
        return html_table(f"at {sizes}", ("array", "shape", "dtype", "value"), rows, paths)

    def to_pandas(self) -> DataFrame:
        """Return a table with a row for each array: name, shape, dtype, mean, minimum and maximum.

        Raises:
            NoPandas: pandas is not installed.
        """
        return frame(
            {
                "array": name,
                "shape": array.shape,
                "dtype": str(array.dtype),
                "mean": float(array.mean()) if array.size else None,
                "least": float(array.min()) if array.size else None,
                "most": float(array.max()) if array.size else None,
            }
            for name, array in arrays_of(self).items()
        )


def load(name: str | PathLike[str], folders: Folders = ()) -> Spec:
    """Load and check a model by its name (``lesson6/simple_rnn``) or by its file's path.

    Args:
        name: The name, or the path.
        folders: Folders of further definitions, searched before the built-in definitions.

    Raises:
        SpecError: a file is wrong; the message has line and column.
        UsageError: there is no model of this name, or no such folder.
    """
    path = arguments.path(name, "a model")
    if path is None:
        raise arguments.wrong_type("a model", "a name, or the path of its file", name)
    return load_spec(str(name), arguments.folders(folders))


@takes_options(PassOptions)
def run(
    spec: str | PathLike[str] | Spec, backend: str, **options: Unpack[RunKeywords]
) -> RunResult:
    """Run one pass of a model on your own arrays, on a backend or on the ``"oracle"``.

    The oracle is numpy in float64, which every backend is compared with. The results are not
    checked; NaN and infinity are allowed. Arrays have the names that the spec declares, and may be
    anything that numpy converts to an array. Their shapes set batch and time. Of each group of
    arrays, such as ``inputs``, give all arrays or none.

    Returns:
        The arrays by name, with ``paths``, ``sizes`` and ``version``.

    Raises:
        HarnessError: a name is unknown, a shape or an index does not fit, a needed array is
            missing, or the backend could not be run (:class:`harness.given.run.BackendError`).
    """
    values = arguments.of(PassOptions, {"backend": backend, **options})
    model = spec if isinstance(spec, Spec) else load(spec, values.get("folders", ()))
    sources = {name: values.get(name) for name in ("parameters", "inputs", "state", "targets")}
    arrays = gather(model, values.get("sizes", {}), **sources)
    results_wanted = values.get("want", WANTED)
    return RunResult(
        **vars(run_once(model, backend, arrays, results_wanted, build(Settings, values)))
    )
