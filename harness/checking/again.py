"""The command that runs a cell once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.checking.options import DECIDING
from harness.results.cell import Cell
from harness.runtime.labels import backend_of


def again(cell: Cell, head: Mapping[str, Any], checks: Sequence[str] = ()) -> list[str]:
    """The words of the command that runs a cell once more, as the run with this head did.

    With ``checks``, only those; else the ones that the run was asked for.
    """
    request = head.get("request") or {}
    own = request.get("against") or {}
    environment = head.get("environment", {}).get(cell.backend, {})
    # The column of a user's own model is no backend to ask for; what stands before its @ is.
    backend = backend_of(cell.backend) if own else cell.backend
    spec = head.get("sources", {}).get(cell.spec, cell.spec)
    words = ["harness", "check", spec, "--backend", backend, "--dtype", cell.dtype]
    words += ["--path", cell.path] if cell.path != "native" else []
    words += ["--device", cell.device] if cell.device != "cpu" else []
    given = (*head.get("files", {}).items(), *head.get("limits", {}).items())
    words += [word for option in given for word in option]
    for option, values in (
        ("--map", own.get("map", ())),
        ("--takes", own.get("takes", ())),
        ("--returns", own.get("returns", ())),
        ("--specs", head.get("folders", ())),
        ("--env", [f"{backend}:{name}={value}" for name, value in environment.items()]),
    ):
        words += [word for value in values for word in (option, str(value))]
    asked = {**request, **({"checks": checks} if checks else {})}
    return words + [word for one in DECIDING for word in one.words(asked.get(one.name))]
