"""The request of ``harness.check`` and ``harness.cells``, from arguments as Python gives them."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from harness.api import arguments
from harness.checking.own_model.asking import of_model
from harness.checking.request import Request
from harness.given.files import gather_for
from harness.runs.shards import Shard

if TYPE_CHECKING:
    from harness.api.arguments import Folders, Models, Names


def check_request(
    specs: Models,
    backends: Names,
    *,
    numbers: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    folders: Folders = (),
    sizes: Mapping[str, int] | None = None,
    records: str | PathLike[str] | None = None,
    history: str | PathLike[str] | None = None,
    shard: str | None = None,
    **given: Any,
) -> Request:
    """The request of arguments as Python gives them.

    Raises:
        UsageError: an argument is none that there is.
        HarnessError: a spec, or a file, is wrong.
    """
    names, all_folders = arguments.models(specs, folders)
    asked = arguments.mapping(sizes, "sizes")
    for name in ("dtypes", "paths", "checks"):
        given[name] = arguments.names(given[name], name)
    given["pythons"] = arguments.interpreters(given["pythons"])
    given["environment"] = arguments.variables(given["environment"], "environment")
    arguments.text(given["device"], "device")
    if given.get("on") is not None:
        arguments.text(given["on"], "on")
    request = Request(
        specs=names,
        backends=arguments.names(backends, "backends"),
        folders=all_folders,
        sizes=asked,
        records=arguments.path(records, "records"),
        history=arguments.path(history, "history"),
        given=gather_for(names, all_folders, asked, **(numbers or {})),
        shard=None if shard is None else Shard.read(str(shard)),
        **given,
    )
    return request if model is None else _of_model(request, model)


def _of_model(request: Request, model: Mapping[str, Any]) -> Request:
    """A request of a model of a user's own, if one is asked for; :class:`UsageError` as of it."""
    target, maps = arguments.path(model["against"], "against"), model["maps"]
    if not isinstance(maps, str) and hasattr(maps, "items"):
        maps = tuple(f"{ours}={theirs}" for ours, theirs in maps.items())
    return of_model(
        request,
        {
            "against": None if target is None else str(target),
            "maps": arguments.names(maps, "maps"),
            **{name: arguments.names(model[name], name) for name in ("takes", "returns")},
        },
    )
