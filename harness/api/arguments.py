"""Conversion of Python arguments (such as one name or a list) to the types that requests need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from harness.command.declared import options_of
from harness.command.options import share
from harness.errors import UsageError, shorten
from harness.language.model import Spec
from harness.runs.shards import Shard

# Kinds of text options that also accept the path of a file.
PLACES = ("file", "text")
Names = str | Iterable[str]
Models = str | PathLike[str] | Spec | Iterable[str | PathLike[str] | Spec]
Folders = str | PathLike[str] | Iterable[str | PathLike[str]]
Numbers = int | Iterable[int]


def names(value: Names, what: str) -> tuple[str, ...]:
    """Return a name or several names as a tuple; a string is a single name.

    Raises:
        UsageError: the value is neither a name nor several names.
    """
    found = _several(value, what, "a name or several")
    for name in found:
        if not isinstance(name, str):
            raise refused(what, "a name or several", name)
    return found


def folders(value: Folders, what: str = "folders") -> tuple[Path, ...]:
    """Return a folder or several folders as paths.

    Raises:
        UsageError: the value is neither a path nor several paths.
    """
    found = _several(value, what, "a path or several")
    for path in found:
        if not isinstance(path, str | PathLike) or not isinstance(fspath(path), str):
            raise refused(what, "a path or several", path)
    return tuple(map(Path, found))


def path(value: str | PathLike[str] | None, what: str) -> Path | None:
    """Return the path of a file, or None.

    Raises:
        UsageError: the value is not a path.
    """
    if value is None:
        return None
    if not isinstance(value, str | PathLike) or not isinstance(fspath(value), str):
        raise refused(what, "a path", value)
    return Path(value)


def numbers(value: Numbers, what: str) -> tuple[int, ...]:
    """Return a number or several numbers as a tuple; the request checks types and ranges.

    Raises:
        UsageError: the value is neither a number nor several numbers.
    """
    return _several(value, what, "a whole number or several")


def mapping(value: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """Return a mapping by name; convert None to an empty mapping.

    Raises:
        UsageError: the value is not a mapping by name.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise refused(what, "a dictionary by name", value)
    return dict(value)


def text(value: str, what: str, wanted: str = "a name") -> str:
    """Return a string; ``wanted`` describes it in the error.

    Raises:
        UsageError: the value is not a string.
    """
    if not isinstance(value, str):
        raise refused(what, wanted, value)
    return value


def interpreters(value: Mapping[str, Any] | None, what: str = "pythons") -> dict[str, str]:
    """Return the interpreter of each backend as a string.

    Raises:
        UsageError: a value is neither a string nor a path.
    """
    return {name: str(path(one, what)) for name, one in mapping(value, what).items()}


def texts(value: Mapping[str, Any] | None, what: str) -> dict[str, str]:
    """Return strings by name.

    Raises:
        UsageError: a value is not a string.
    """
    found = mapping(value, what)
    return {name: text(one, f"{what}, {name!r},", "a text") for name, one in found.items()}


def variables(value: Mapping[str, Any] | None, what: str) -> dict[str, dict[str, str]]:
    """Return the environment variables of each backend's process.

    Raises:
        UsageError: a value is not a mapping of strings.
    """
    found = mapping(value, what)
    return {name: texts(one, f"{what} of {name!r}") for name, one in found.items()}


def models(specs: Models, given: Folders) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Return the names of specs, and the folders to search.

    The folders are those in ``given`` and those of specs that are already loaded.

    Raises:
        UsageError: a value is neither a name, nor a path, nor a spec.
    """
    found, all_folders = [], list(folders(given))
    for spec in _several(specs, "specs", "a spec or several"):
        if isinstance(spec, Spec):
            found.append(_name_of(spec))
            all_folders += spec.library.folders
        elif isinstance(spec, str | PathLike) and isinstance(fspath(spec), str):
            found.append(fspath(spec))
        else:
            raise refused("specs", "a spec's name, the path of its file or a spec", spec)
    return tuple(found), tuple(dict.fromkeys(all_folders))


def model(spec: str | PathLike[str] | Spec, given: Folders) -> tuple[str, tuple[Path, ...]]:
    """Return the name of a single spec and the folders, like :func:`models`.

    Raises:
        UsageError: there is not exactly one spec.
    """
    found, all_folders = models(spec, given)
    if len(found) != 1:
        raise refused("spec", "one spec", found)
    return found[0], all_folders


def _name_of(spec: Spec) -> str:
    """Return a spec's name if its library has the spec, else the path of its file."""
    if spec.library.has("model", spec.name):
        return spec.name
    return str(spec.definition.path)


def _several(value: Any, what: str, wanted: str) -> tuple[Any, ...]:

    # A path or a spec is a single value. Bytes and mappings are rejected.
    if isinstance(value, bytes | Mapping) or value is None:
        raise refused(what, wanted, value)
    if isinstance(value, str | Spec) or not isinstance(value, Iterable):
        return (value,)
    return tuple(value)


def of(declared: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the given options of a command to the types of their fields.

    Raises:
        UsageError: an option has a wrong type.
    """
    readers: dict[str, Callable[[Any, str], Any]] = {
        "tuple[str, ...]": names,
        "tuple[Path, ...]": folders,
        "Mapping[str, int]": mapping,
        "Mapping[str, str]": texts,
        "pythons": interpreters,
        "Mapping[str, Mapping[str, str]]": variables,
        "Mapping[str, tuple[int, ...]]": lambda value, what: {
            name: numbers(one, f"size {name!r}") for name, one in mapping(value, what).items()
        },
        "tuple[int, ...]": numbers,
        "Path": path,
        "float SHARE": lambda value, what: share(str(value)),
        "str": lambda value, what: text(value, what, "a name" if one.kind else "a text"),
        "place": lambda value, what: str(path(value, what)),
        "Shard": lambda value, what: Shard.read(str(value)),
    }
    found: dict[str, Any] = {}
    for one in options_of(declared):
        value: Any = given.get(one.name)
        optional = one.default is None or isinstance(one.default, dict)
        if one.name not in given or (optional and value is None):
            continue
        if "=" in (one.metavar or "") and one.type.startswith("tuple") and hasattr(value, "items"):
            value = [f"{key}={item}" for key, item in value.items()]
        if one.name == "spec":
            found["spec"], found["folders"] = model(value, given.get("folders", ()))
        elif one.name == "specs":
            found["specs"], found["folders"] = models(value, given.get("folders", ()))
        elif one.name not in found:
            place = one.type == "str" and one.kind in PLACES
            read = readers.get("place" if place else one.name) or readers.get(
                f"{one.type} {one.metavar}", readers.get(one.type)
            )
            found[one.name] = read(value, one.name) if read is not None else value
    return found


def refused(what: str, wanted: str, value: object) -> UsageError:
    """Return the error for an argument of a wrong type."""

    return UsageError(f"{what} takes {wanted}, found {shorten(repr(value))}")
