"""The request of ``harness check``, made from the options of the command line or of Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from harness.checking.options import DTYPES
from harness.checking.own_model.against import against
from harness.checking.own_model.checks import CHECKS
from harness.checking.request import QUICK, Request, choose_checks
from harness.errors import UsageError, unknown
from harness.given.files import gather_for
from harness.language.library import Library
from harness.runtime.labels import backend_of
from harness.runtime.paths import PATHS

FIELDS = {each.name for each in fields(Request)} - {"against"}


def check_request(given: Mapping[str, Any]) -> Request:
    """Return the request for options, which are given by the field names of :class:`.CheckOptions`.

    Raises:
        UsageError: an option has an unknown value, or two options exclude each other.
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
    """Return the names of the paths without repetition; raise :class:`UsageError` for an unknown
    name."""
    for name in names:
        if name not in (*PATHS, "all"):
            instead = "'native,equations'" if name == "both" else ""
            raise unknown("path", name, (*PATHS, "all"), instead)
    return tuple(dict.fromkeys(p for name in names for p in (PATHS if name == "all" else [name])))


# The request for checks of a user's own model.

# Options that cannot be used with a user's own model -> the reason.
REFUSED: Mapping[str, str] = {
    "on": "your own model always runs on this machine",
    "reproducers": "a reproducer would contain the spec's program, not your model",
    "quick": "the checks of your own model are always quick",
    "pairs": "your own model is compared with the oracle only",
    "repeat": "the check 'repeatability' already makes each call twice",
}
OF_MODEL = ("maps", "takes", "returns")


def of_model(request: Request, given: Mapping[str, Any]) -> Request:
    """Return the request for the option ``--against``; without that option, return the request
    unchanged.

    Raises:
        UsageError: the model is invalid, or an option needs or excludes ``--against``.
    """
    if given.get("against") is None:
        for name in OF_MODEL:
            if given.get(name):
                option = "map" if name == "maps" else name
                raise UsageError(f"--{option} needs --against, which names your own model")
        return request
    for name, why in REFUSED.items():
        if given.get(name) or getattr(request, name, None):
            raise UsageError(f"--{name} cannot be used with --against: {why}")
    if tuple(request.paths) != ("native",):
        raise UsageError("--path cannot be used with --against: your own model has only one path")
    if len(request.specs) != 1:
        found = ", ".join(request.specs) or "none"
        raise UsageError(
            f"--against needs exactly one SPEC to compare the model with, found {found}"
        )
    for pattern in request.checks:
        if not {*choose_checks((pattern,))} & CHECKS.keys():
            raise UsageError(
                f"{pattern} is not a check of your own model (allowed are: {', '.join(CHECKS)})"
            )
    own = against(
        given["against"],
        request.backends,
        *(given.get(name, ()) for name in OF_MODEL),
    )
    framework = backend_of(own.column)
    # The arrays in a model file have one dtype, usually float32.
    one = not own.name and tuple(request.dtypes) == DTYPES
    return replace(
        request,
        dtypes=("float32",) if one else request.dtypes,
        backends=(own.column,),
        pythons=_of(request.pythons, framework, own.column),
        environment=_of(request.environment, framework, own.column),
        against=own,
    )


def _of(by_backend: Mapping[str, Any], framework: str, column: str) -> dict[str, Any]:
    return {column: by_backend[framework]} if framework in by_backend else {}
