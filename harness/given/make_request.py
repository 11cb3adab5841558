"""Making the request of ``harness check`` from the options of the command line or of Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from harness.checking.options import DTYPES
from harness.checking.own_model.against import Against, parse_against
from harness.checking.own_model.check_table import CHECKS
from harness.checking.own_model.process import ModelProcess
from harness.checking.request import QUICK, Request, choose_checks
from harness.errors import UsageError, unknown
from harness.given.files import gather_for
from harness.language.library import Library
from harness.runtime.labels import backend_of
from harness.runtime.paths import KNOWN_DTYPES, OWN_PATHS, PATHS

FIELDS = {each.name for each in fields(Request)} - {"against"}


def make_check_request(options: Mapping[str, Any]) -> Request:
    """Return the request for the options of ``harness check``. The keys of ``options`` are field
    names of :class:`.CheckOptions`.

    Raises:
        UsageError: an option has an unknown value, or two options exclude each other.
        HarnessError: a spec, or a file, is wrong.
    """
    specs = Library(options.get("folders", ())).expand_patterns(options.get("specs", ()))
    sources = {name: options.get(name) for name in ("inputs", "state", "targets")}
    given_arrays = gather_for(
        specs,
        options.get("folders", ()),
        options.get("sizes", {}),
        options.get("texts", {}),
        parameters=options.get("weights"),
        **sources,
    )
    fields_given = {**options, "given": given_arrays, **({"specs": specs} if specs else {})}
    if options.get("against") is not None and not options.get("texts"):
        fields_given.pop("paths", None)  # the model has paths of its own
    if "paths" in fields_given:
        fields_given["paths"] = _check_paths(options["paths"])
    if options.get("quick"):
        fields_given = {**QUICK, **fields_given}
    request = Request(**{name: value for name, value in fields_given.items() if name in FIELDS})
    return apply_own_model(request, options)


def _check_paths(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the paths without repetition; ``all`` stands for all paths. Raise
    :class:`UsageError` for an unknown name."""
    for name in names:
        if name not in (*PATHS, "all"):
            instead = "'native,equations'" if name == "both" else ""
            raise unknown("path", name, (*PATHS, "all"), instead)
    return tuple(dict.fromkeys(p for name in names for p in (PATHS if name == "all" else [name])))


# The request for checks of a user's own model.

# Options that cannot be used with a user's own model -> the reason.
REFUSED_OPTIONS: Mapping[str, str] = {
    "on": "your own model always runs on this machine",
    "reproducers": "a reproducer would contain the spec's program, not your model",
    "quick": "the checks of your own model are always quick",
    "pairs": "your own model is compared with the oracle only",
    "repeat": "the check 'repeatability' already makes each call twice",
}
MODEL_OPTIONS = ("maps", "takes", "returns")


def apply_own_model(request: Request, options: Mapping[str, Any]) -> Request:
    """Return the request for a check. If the option ``--against`` names a model of the user, change
    the request so that it checks this model.

    Raises:
        UsageError: the model is invalid, or an option needs or excludes ``--against``.
    """
    if options.get("against") is None:
        for name in MODEL_OPTIONS:
            if options.get(name):
                option = "map" if name == "maps" else name
                raise UsageError(f"--{option} needs --against, which names your own model")
        return request
    if request.texts:
        return _add_own_model(request, options["against"])
    for name, why in REFUSED_OPTIONS.items():
        if options.get(name) or getattr(request, name, None):
            raise UsageError(f"--{name} cannot be used with --against: {why}")
    if len(request.specs) != 1:
        spec_names = ", ".join(request.specs) or "none"
        raise UsageError(
            f"--against needs exactly one SPEC to compare the model with, found {spec_names}"
        )
    for pattern in request.checks:
        if not {*choose_checks((pattern,))} & CHECKS.keys():
            raise UsageError(
                f"{pattern} is not a check of your own model (allowed are: {', '.join(CHECKS)})"
            )
    own_model = parse_against(
        options["against"],
        request.backends,
        *(options.get(name, ()) for name in MODEL_OPTIONS),
    )
    framework = backend_of(own_model.column)
    paths = tuple(options.get("paths", own_model.paths))
    if paths != own_model.paths:
        python, variables = request.pythons.get(framework), request.environment.get(framework)
        with ModelProcess(own_model, python, request.timeout, variables) as process:
            own_model = process.choose_paths(paths)
    if tuple(request.dtypes) != DTYPES:
        _check_dtypes(own_model, request.dtypes)
    return replace(
        request,
        dtypes=own_model.choose_dtypes(request.dtypes),
        backends=(own_model.column,),
        pythons=_select_framework(request.pythons, framework, own_model.column),
        environment=_select_framework(request.environment, framework, own_model.column),
        against=own_model,
    )


def _check_dtypes(own_model: Against, dtypes: Sequence[str]) -> None:
    """Raise :class:`UsageError` if no path of a user's model has one of the dtypes."""
    for dtype in dtypes:
        able = [path for path, allowed in OWN_PATHS.items() if dtype in allowed]
        if not {*able} & {*own_model.paths} and dtype in KNOWN_DTYPES:
            raise UsageError(
                f"--dtype {dtype}: your own model runs in {dtype} only with --path "
                f"{' or '.join(able)}; found --path {','.join(own_model.paths)}"
            )


def _add_own_model(request: Request, own_model: Against) -> Request:
    """Return a request that checks a traced spec on backends, and the user's model against it."""
    framework = backend_of(own_model.column)

    def by_column(by_backend: Mapping[str, Any]) -> dict[str, Any]:
        kept = {n: v for n, v in by_backend.items() if n in (request.backends or by_backend)}
        return kept | _select_framework(by_backend, framework, own_model.column)

    return replace(
        request,
        pythons=by_column(request.pythons),
        environment=by_column(request.environment),
        against=own_model,
    )


def _select_framework(by_backend: Mapping[str, Any], framework: str, column: str) -> dict[str, Any]:
    return {column: by_backend[framework]} if framework in by_backend else {}
