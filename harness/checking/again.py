"""The command that runs a cell once more."""

from __future__ import annotations

from collections.abc import Sequence

from harness.checking.options import DECIDING
from harness.results.cell import Cell
from harness.results.lines import Head, RequestRecord
from harness.runtime.labels import backend_of


def again(cell: Cell, head: Head | None, checks: Sequence[str] = ()) -> list[str]:
    """The words of the command that runs a cell once more, as the run with this head did.

    With ``checks``, only those; else the ones that the run was asked for.
    """
    head = head or Head.model_construct(environment={})
    request = head.request or RequestRecord()
    own = request.against
    # The column of a user's own model is no backend to ask for; what stands before its @ is.
    backend = backend_of(cell.backend) if own else cell.backend
    spec, environment = head.sources.get(cell.spec, cell.spec), head.environment
    words = ["harness", "check", spec, "--backend", backend, "--dtype", cell.dtype]
    words += ["--path", cell.path] if cell.path != "native" else []
    words += ["--device", cell.device] if cell.device != "cpu" else []
    given = (*head.files.items(), *head.limits.items())
    words += [word for option in given for word in option]
    for option, values in (
        ("--map", own.map if own else ()),
        ("--takes", own.takes if own else ()),
        ("--returns", own.returns if own else ()),
        ("--specs", head.folders),
        ("--env", [f"{backend}:{n}={v}" for n, v in environment.get(cell.backend, {}).items()]),
    ):
        words += [word for value in values for word in (option, value)]
    asked = request.model_copy(update={"checks": checks}) if checks else request
    return words + [word for one in DECIDING for word in one.words(getattr(asked, one.name, None))]
