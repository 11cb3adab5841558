"""Signatures and docstrings for functions whose options are declared in a dataclass."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING
from functools import wraps
from typing import Any, TypeVar

from harness.api.arguments import PLACES
from harness.command.declared import Option, options_of
from harness.errors import did_you_mean

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
        run.__doc__ = f"{before}\n    Args:\n{_told([*known.values()])}\n{returns}{after}"
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


def _told(known: list[Option]) -> str:
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
            told = f"; use {one.name}=" if one.python is not None else "; only the command has it"
            return TypeError(f"{function}() has no argument {name!r}{told}")
    near = did_you_mean(name, names) or f" (known: {', '.join(names)})"
    return TypeError(f"{function}() has no argument {name!r}{near}")
