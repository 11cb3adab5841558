"""``harness.load`` and ``harness.run``: a model, and one pass of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from harness.api import arguments
from harness.api.run_result import RunResult
from harness.api.signature import takes_options
from harness.command.declared import build
from harness.given.files import gather
from harness.given.options import PassOptions, Settings
from harness.given.run import WANTED, run_once
from harness.language.model import Spec, load_spec

if TYPE_CHECKING:
    from os import PathLike

    from harness.api.arguments import Folders
    from harness.api.keywords import RunKeywords


def load(name: str | PathLike[str], folders: Folders = ()) -> Spec:
    """A model by name (``lesson6/simple_rnn``) or by its file's path, checked in every part.

    Args:
        name: The name, or the path.
        folders: Folders of further definitions, searched before those that ship.

    Raises:
        SpecError: a file is wrong; the message has line and column.
        UsageError: nothing is named so, or there is no such folder.
    """
    path = arguments.path(name, "a model")
    if path is None:
        raise arguments.refused("a model", "a name, or the path of its file", name)
    return load_spec(str(name), arguments.folders(folders))


@takes_options(PassOptions)
def run(
    spec: str | PathLike[str] | Spec, backend: str, **options: Unpack[RunKeywords]
) -> RunResult:
    """One pass of a model over numbers of your own, on a backend, or on the ``"oracle"``: numpy in
    float64, what every backend is compared with. Nothing is judged; NaN and infinity are allowed.

    Arrays are given by the names that the spec declares, as anything that numpy makes an array of.
    Batch and time are those of the arrays. A group is given as a whole, or not at all.

    Returns:
        The arrays by name, with ``paths``, ``sizes`` and ``version``.

    Raises:
        HarnessError: a name is unknown, a shape or an index does not fit, something that is needed
            was not given, or the backend could not be run
            (:class:`harness.given.run.BackendError`).
    """
    given = arguments.of(PassOptions, {"backend": backend, **options})
    loaded = spec if isinstance(spec, Spec) else load(spec, given.get("folders", ()))
    sources = {name: given.get(name) for name in ("parameters", "inputs", "state", "targets")}
    numbers = gather(loaded, given.get("sizes", {}), **sources)
    wanted = given.get("want", WANTED)
    return RunResult(**vars(run_once(loaded, backend, numbers, wanted, build(Settings, given))))
