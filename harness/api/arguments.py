"""Conversion of Python arguments (such as one name or a list) to the types that the code of a
command needs."""

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
    """Return a name or several names as a tuple; a string is a single name. ``what`` names the
    argument in the error message, e.g. ``"backends"``.

    Raises:
        UsageError: the value is neither a name nor several names.
    """
    names_ = _as_tuple(value, what, "a name or several")
    for name in names_:
        if not isinstance(name, str):
            raise wrong_type(what, "a name or several", name)
    return names_


def folders(value: Folders, what: str = "folders") -> tuple[Path, ...]:
    """Return a folder or several folders as paths. ``what`` names the argument in the error
    message.

    Raises:
        UsageError: the value is neither a path nor several paths.
    """
    folders_ = _as_tuple(value, what, "a path or several")
    for path in folders_:
        if not _is_path(path):
            raise wrong_type(what, "a path or several", path)
    return tuple(map(Path, folders_))


def path(value: str | PathLike[str] | None, what: str) -> Path | None:
    """Return the path of a file, or None if ``value`` is None. ``what`` names the argument in the
    error message.

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
    """Return a mapping with string keys as a dictionary; None becomes an empty dictionary. ``what``
    names the argument in the error message.

    Raises:
        UsageError: the value is not a mapping with string keys.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise wrong_type(what, "a dictionary with names as keys", value)
    return dict(value)


def text(value: str, what: str, wanted: str = "a name") -> str:
    """Check that a value is a string, and return it. In the error message, ``what`` names the
    argument, and ``wanted`` describes the expected value.

    Raises:
        UsageError: the value is not a string.
    """
    if not isinstance(value, str):
        raise wrong_type(what, wanted, value)
    return value


def texts(value: Mapping[str, Any] | None, what: str) -> dict[str, str]:
    """Check that all values of a mapping are strings, and return it as a dictionary. ``what`` names
    the argument in the error message.

    Raises:
        UsageError: a value is not a string.
    """
    by_name = mapping(value, what)
    return {name: text(value_, f"{what}, {name!r},", "a text") for name, value_ in by_name.items()}


def models(specs: Models, given: Folders) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Return two tuples: the names of specs (or the paths of their files), and the folders to
    search for definitions.

    These folders are the folders in ``given``, and the folders of specs that are already loaded.

    Raises:
        UsageError: a value is neither a name, nor a path, nor a spec.
    """
    names_, all_folders = [], list(folders(given))
    for spec in _as_tuple(specs, "specs", "a spec or several"):
        if isinstance(spec, Spec):
            is_in_library = spec.library.has("model", spec.name)
            names_.append(spec.name if is_in_library else str(spec.definition.path))
            all_folders += spec.library.folders
        elif _is_path(spec):
            names_.append(fspath(spec))
        else:
            raise wrong_type("specs", "a spec's name, the path of its file or a spec", spec)
    return tuple(names_), tuple(dict.fromkeys(all_folders))


def model(spec: str | PathLike[str] | Spec, given: Folders) -> tuple[str, tuple[Path, ...]]:
    """Return two things: the name of a single spec (or the path of its file), and the folders to
    search for definitions, as :func:`models` does for several specs.

    Raises:
        UsageError: there is not exactly one spec.
    """
    names_, all_folders = models(spec, given)
    if len(names_) != 1:
        raise wrong_type("spec", "one spec", names_)
    return names_[0], all_folders


def _as_tuple(value: Any, what: str, wanted: str) -> tuple[Any, ...]:

    # A path or a spec is a single value. Bytes and mappings are rejected.
    if isinstance(value, bytes | Mapping) or value is None:
        raise wrong_type(what, wanted, value)
    if isinstance(value, str | Spec) or not isinstance(value, Iterable):
        return (value,)
    return tuple(value)


def of(declared: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert Python arguments to the types of a command's options, and return them by option name.
    ``declared`` is the dataclass of the options, e.g. ``CheckOptions``; ``given`` has the arguments
    by option name.

    Raises:
        UsageError: an option has a wrong type.
    """
    readers: dict[str, Callable[[Any, str], Any]] = {
        "tuple[str, ...]": names,
        "tuple[Path, ...]": folders,
        "Mapping[str, int]": mapping,
        "Mapping[str, str]": texts,
        "pythons": lambda value, what: {
            name: str(path(option, what)) for name, option in mapping(value, what).items()
        },
        "Mapping[str, Mapping[str, str]]": lambda value, what: {
            name: texts(option, f"{what} of {name!r}")
            for name, option in mapping(value, what).items()
        },
        # The request checks the types and the ranges of numbers.
        "Mapping[str, tuple[int, ...]]": lambda value, what: {
            name: _as_tuple(option, f"size {name!r}", WHOLE_NUMBERS)
            for name, option in mapping(value, what).items()
        },
        "tuple[int, ...]": lambda value, what: _as_tuple(value, what, WHOLE_NUMBERS),
        "Path": path,
        "float SHARE": lambda value, what: share(str(value)),
        "str": lambda value, what: text(value, what, "a name" if option.kind else "a text"),
        "place": lambda value, what: str(path(value, what)),
        "Shard": lambda value, what: Shard.read(str(value)),
    }
    converted: dict[str, Any] = {}
    for option in options_of(declared):
        value: Any = given.get(option.name)
        optional = option.default is None or isinstance(option.default, dict)
        if option.name not in given or (optional and value is None):
            continue
        if (
            "=" in (option.metavar or "")
            and option.type.startswith("tuple")
            and hasattr(value, "items")
        ):
            value = [f"{key}={item}" for key, item in value.items()]
        if option.name == "spec":
            converted["spec"], converted["folders"] = model(value, given.get("folders", ()))
        elif option.name == "specs":
            converted["specs"], converted["folders"] = models(value, given.get("folders", ()))
        elif option.name not in converted:
            place = option.type == "str" and option.kind in PLACES
            read = readers.get("place" if place else option.name) or readers.get(
                f"{option.type} {option.metavar}", readers.get(option.type)
            )
            converted[option.name] = read(value, option.name) if read is not None else value
    return converted


def wrong_type(what: str, wanted: str, value: object) -> UsageError:
    """Return the error for an argument of a wrong type. ``what`` names the argument, ``wanted``
    describes the allowed type, and ``value`` is the wrong value."""

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
    """Yield the options that the Python function of a command takes. ``declared`` is the dataclass
    of the options, e.g. ``CheckOptions``."""
    return (option for option in options_of(declared) if option.python is not None)


def annotation(option: Option) -> str:
    """Return the type annotation of an option, as text for the signature of the Python function."""
    name = "maps" if option.has_names and option.type == "tuple[str, ...]" else option.name
    if option.type == "str" and option.kind in PLACES:
        name = "Path"
    type_name = NAMED.get(name) or TYPES.get(option.type, option.type)
    optional = option.default is None or isinstance(option.default, dict)
    return f"{type_name} | None" if optional and "None" not in type_name else type_name


def takes_options(declared: type) -> Callable[[F], F]:
    """Return a decorator that adds the options of the dataclass ``declared`` to a function's
    signature and docstring.

    The decorated function takes the options as ``**options``. An unknown name raises ``TypeError``.
    """

    def decorate(function: F) -> F:
        by_name = {option.name: option for option in arguments_of(declared)}
        own_signature = inspect.signature(function)
        first = [p for p in own_signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        option_parameters = [
            _parameter(option)
            for option in by_name.values()
            if option.name not in own_signature.parameters
        ]
        option_parameters.sort(
            key=lambda parameter: parameter.kind
        )  # positional parameters come first
        signature = own_signature.replace(parameters=[*first, *option_parameters])

        @wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            for name in options:
                if name not in signature.parameters:
                    raise _unknown(function.__name__, name, declared)
            return function(**signature.bind(*arguments, **options).arguments)

        run.__signature__ = signature  # type: ignore[attr-defined]
        before, returns, after = (function.__doc__ or "").partition("\n    Returns:")
        run.__doc__ = (
            f"{before}\n    Args:\n{_argument_docs([*by_name.values()])}\n{returns}{after}"
        )
        return run  # type: ignore[return-value]

    return decorate


def _parameter(option: Option) -> inspect.Parameter:
    required = option.default is MISSING
    # An argument (not an option) of the command, or the required backend.
    by_place = not (option.word or "--").startswith("-") or (option.name == "backend" and required)
    default = None if isinstance(option.default, dict) else option.default
    return inspect.Parameter(
        option.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD if by_place else inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else default,
        annotation=annotation(option),
    )


def _argument_docs(options: list[Option]) -> str:
    names = {option.word: f"``{option.name}``" for option in options}
    texts = (
        re.sub(
            r"--[a-z-]+", lambda found: names.get(found[0], found[0]), option.python or option.help
        )
        for option in options
    )
    lines = (f"{option.name}: {text}" for option, text in zip(options, texts, strict=True))
    wrapped = (textwrap.wrap(line, 88, subsequent_indent="    ") for line in lines)
    return textwrap.indent("\n".join(line for part in wrapped for line in part), " " * 8)


def _unknown(function: str, name: str, declared: type) -> TypeError:
    """Return the error for an unknown argument ``name`` of a Python function.

    ``name`` may be the name on the command line; the error then says what the argument is called in
    Python. Otherwise the error suggests similar names.
    """
    names = [option.name for option in arguments_of(declared)]
    for option in options_of(declared):
        if name in (option.name, (option.word or "").lstrip("-").replace("-", "_")):
            hint = (
                f"; use {option.name}="
                if option.python is not None
                else "; only the command line has this option"
            )
            return TypeError(f"{function}() has no argument {name!r}{hint}")
    near = did_you_mean(name, names) or f" (known: {', '.join(names)})"
    return TypeError(f"{function}() has no argument {name!r}{near}")
