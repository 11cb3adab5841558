"""Conversion of Python arguments (such as one name or a list) to the types that requests need."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING
from functools import wraps
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar

from harness.command.declared import Option, options_of
from harness.command.options import share
from harness.errors import UsageError, did_you_mean, shorten
from harness.language.model import Spec
from harness.runs.shards import Shard

# Kinds of text options that also accept the path of a file.
PLACES = ("file", "text")
Names = str | Iterable[str]
Models = str | PathLike[str] | Spec | Iterable[str | PathLike[str] | Spec]
Folders = str | PathLike[str] | Iterable[str | PathLike[str]]
Numbers = int | Iterable[int]
WHOLE_NUMBERS = "a whole number or several"


def names(value: Names, what: str) -> tuple[str, ...]:
    """Return a name or several names as a tuple; a string is a single name.

    Raises:
        UsageError: the value is neither a name nor several names.
    """
    found = _several(value, what, "a name or several")
    for name in found:
        if not isinstance(name, str):
            raise wrong_type(what, "a name or several", name)
    return found


def folders(value: Folders, what: str = "folders") -> tuple[Path, ...]:
    """Return a folder or several folders as paths.

    Raises:
        UsageError: the value is neither a path nor several paths.
    """
    found = _several(value, what, "a path or several")
    for path in found:
        if not _is_path(path):
            raise wrong_type(what, "a path or several", path)
    return tuple(map(Path, found))


def path(value: str | PathLike[str] | None, what: str) -> Path | None:
    """Return the path of a file, or None.

    Raises:
        UsageError: the value is not a path.
    """
    if value is None:
        return None
    if not _is_path(value):
        raise wrong_type(what, "a path", value)
    return Path(value)


def _is_path(value: object) -> bool:
    return isinstance(value, str | PathLike) and isinstance(fspath(value), str)


def mapping(value: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """Return a mapping by name; convert None to an empty mapping.

    Raises:
        UsageError: the value is not a mapping by name.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise wrong_type(what, "a dictionary with names as keys", value)
    return dict(value)


def text(value: str, what: str, wanted: str = "a name") -> str:
    """Return a string; ``wanted`` describes it in the error.

    Raises:
        UsageError: the value is not a string.
    """
    if not isinstance(value, str):
        raise wrong_type(what, wanted, value)
    return value


def texts(value: Mapping[str, Any] | None, what: str) -> dict[str, str]:
    """Return strings by name.

    Raises:
        UsageError: a value is not a string.
    """
    found = mapping(value, what)
    return {name: text(one, f"{what}, {name!r},", "a text") for name, one in found.items()}


def models(specs: Models, given: Folders) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Return the names of specs, or the paths of their files, and the folders to search.

    The folders are those in ``given`` and those of specs that are already loaded.

    Raises:
        UsageError: a value is neither a name, nor a path, nor a spec.
    """
    found, all_folders = [], list(folders(given))
    for spec in _several(specs, "specs", "a spec or several"):
        if isinstance(spec, Spec):
            known = spec.library.has("model", spec.name)
            found.append(spec.name if known else str(spec.definition.path))
            all_folders += spec.library.folders
        elif _is_path(spec):
            found.append(fspath(spec))
        else:
            raise wrong_type("specs", "a spec's name, the path of its file or a spec", spec)
    return tuple(found), tuple(dict.fromkeys(all_folders))


def model(spec: str | PathLike[str] | Spec, given: Folders) -> tuple[str, tuple[Path, ...]]:
    """Return the name of a single spec and the folders, like :func:`models`.

    Raises:
        UsageError: there is not exactly one spec.
    """
    found, all_folders = models(spec, given)
    if len(found) != 1:
        raise wrong_type("spec", "one spec", found)
    return found[0], all_folders


def _several(value: Any, what: str, wanted: str) -> tuple[Any, ...]:

    # A path or a spec is a single value. Bytes and mappings are rejected.
    if isinstance(value, bytes | Mapping) or value is None:
        raise wrong_type(what, wanted, value)
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
        "pythons": lambda value, what: {
            name: str(path(one, what)) for name, one in mapping(value, what).items()
        },
        "Mapping[str, Mapping[str, str]]": lambda value, what: {
            name: texts(one, f"{what} of {name!r}") for name, one in mapping(value, what).items()
        },
        # The request checks the types and the ranges of numbers.
        "Mapping[str, tuple[int, ...]]": lambda value, what: {
            name: _several(one, f"size {name!r}", WHOLE_NUMBERS)
            for name, one in mapping(value, what).items()
        },
        "tuple[int, ...]": lambda value, what: _several(value, what, WHOLE_NUMBERS),
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


def wrong_type(what: str, wanted: str, value: object) -> UsageError:
    """Return the error for an argument of a wrong type."""

    return UsageError(f"{what} takes {wanted}, found {shorten(repr(value))}")


# Signatures and docstrings for functions whose options are declared in a dataclass.


F = TypeVar("F", bound=Callable[..., Any])
# Python types of arguments that accept more types than their field, by type of the field.
TYPES: Mapping[str, str] = {
    "tuple[str, ...]": "Names",
    "tuple[Path, ...]": "Folders",
    "Path": "str | PathLike[str]",
    "tuple[int, ...]": "Numbers",
    "Mapping[str, tuple[int, ...]]": "Mapping[str, Numbers] | None",
    "Shard": "str",
}
# The same by name of the field.
NAMED: Mapping[str, str] = {
    "spec": "str | PathLike[str] | Spec",
    "specs": "Models",
    "maps": "Names | Mapping[str, str]",
    "pythons": "Mapping[str, str | PathLike[str]] | None",
    "Path": TYPES["Path"],
}


def arguments_of(declared: type) -> Iterator[Option]:
    """Yield the options that the Python function of a command takes."""
    return (one for one in options_of(declared) if one.python is not None)


def annotation(one: Option) -> str:
    """Return the type of an argument as text for the signature."""
    name = "maps" if one.has_names and one.type == "tuple[str, ...]" else one.name
    if one.type == "str" and one.kind in PLACES:
        name = "Path"
    found = NAMED.get(name) or TYPES.get(one.type, one.type)
    optional = one.default is None or isinstance(one.default, dict)
    return f"{found} | None" if optional and "None" not in found else found


def takes_options(declared: type) -> Callable[[F], F]:
    """Give a function the signature and docstring of the options that a dataclass declares.

    The function takes the options as ``**options``. An unknown name raises ``TypeError``.
    """

    def decorate(function: F) -> F:
        known = {one.name: one for one in arguments_of(declared)}
        own = inspect.signature(function)
        first = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        named = [_parameter(one) for one in known.values() if one.name not in own.parameters]
        named.sort(key=lambda parameter: parameter.kind)  # positional parameters come first
        signature = own.replace(parameters=[*first, *named])

        @wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            for name in options:
                if name not in signature.parameters:
                    raise _unknown(function.__name__, name, declared)
            return function(**signature.bind(*arguments, **options).arguments)

        run.__signature__ = signature  # type: ignore[attr-defined]
        before, returns, after = (function.__doc__ or "").partition("\n    Returns:")
        run.__doc__ = f"{before}\n    Args:\n{_argument_docs([*known.values()])}\n{returns}{after}"
        return run  # type: ignore[return-value]

    return decorate


def _parameter(one: Option) -> inspect.Parameter:
    required = one.default is MISSING
    # An argument (not an option) of the command, or the required backend.
    by_place = not (one.word or "--").startswith("-") or (one.name == "backend" and required)
    default = None if isinstance(one.default, dict) else one.default
    return inspect.Parameter(
        one.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD if by_place else inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else default,
        annotation=annotation(one),
    )


def _argument_docs(known: list[Option]) -> str:
    names = {one.word: f"``{one.name}``" for one in known}
    texts = (
        re.sub(r"--[a-z-]+", lambda found: names.get(found[0], found[0]), one.python or one.help)
        for one in known
    )
    lines = (f"{one.name}: {text}" for one, text in zip(known, texts, strict=True))
    wrapped = (textwrap.wrap(line, 88, subsequent_indent="    ") for line in lines)
    return textwrap.indent("\n".join(line for part in wrapped for line in part), " " * 8)


def _unknown(function: str, name: str, declared: type) -> TypeError:
    """Return the error for an unknown argument, with its Python name or the nearest names."""
    names = [one.name for one in arguments_of(declared)]
    for one in options_of(declared):
        if name in (one.name, (one.word or "").lstrip("-").replace("-", "_")):
            told = (
                f"; use {one.name}="
                if one.python is not None
                else "; only the command line has this option"
            )
            return TypeError(f"{function}() has no argument {name!r}{told}")
    near = did_you_mean(name, names) or f" (known: {', '.join(names)})"
    return TypeError(f"{function}() has no argument {name!r}{near}")
