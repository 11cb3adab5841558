"""The request of a check, from the options of any entrance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from harness.checking.own_model.asking import of_model
from harness.checking.request import QUICK, Request
from harness.errors import unknown
from harness.given.files import gather_for
from harness.language.library import Library
from harness.runtime.paths import PATHS

FIELDS = {each.name for each in fields(Request)} - {"against"}


def check_request(given: Mapping[str, Any]) -> Request:
    """Return the request of the options that were given, by field of :class:`.CheckOptions`.

    Raises:
        UsageError: an option has a value that there is not, or two do not go together.
        HarnessError: a spec, or a file, is wrong.
    """
    specs = Library(given.get("folders", ())).matching(given.get("specs", ()))
    sources = {name: given.get(name) for name in ("inputs", "state", "targets")}
    own = gather_for(
        specs,
        given.get("folders", ()),
        given.get("sizes", {}),
        parameters=given.get("weights"),
        **sources,
    )
    found = {**given, "given": own, **({"specs": specs} if specs else {})}
    if "paths" in given:
        found["paths"] = _paths(given["paths"])
    if given.get("quick"):
        found = {**QUICK, **found}
    request = Request(**{name: value for name, value in found.items() if name in FIELDS})
    return of_model(request, given)


def _paths(names: Sequence[str]) -> tuple[str, ...]:
    """Each path once; :class:`UsageError` for an unknown one."""
    for name in names:
        if name not in (*PATHS, "all"):
            instead = "'native,equations'" if name == "both" else ""
            raise unknown("path", name, (*PATHS, "all"), instead)
    return tuple(dict.fromkeys(p for name in names for p in (PATHS if name == "all" else [name])))
