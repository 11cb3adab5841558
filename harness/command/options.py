"""Functions that read the texts of options. The module imports only click and messages, to start
fast."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click
from click.shell_completion import CompletionItem

from harness.command.ranges import SIZES, THRESHOLD, Range
from harness.errors import UsageError, did_you_mean

# The harness checks a path when it uses the path, with its own messages.
FILE, FOLDER = click.Path(path_type=Path), click.Path(path_type=Path)
FILE.name, FOLDER.name = "file", "folder"
# The separator of NAME=VALUE items: a comma before the next name, but no comma within a value.
NEXT_NAME = re.compile(r",(?=(?:[^\s:=,/]+:)?[^\s:=,/]+=)")

# A pinned backend at the start of an item, in the notation of pip and 'harness env':
# ``torch==2.6``.
_PINNED = re.compile(r"([^=@:/]+)==([^=:]*)")

# Completions by kind of value; the modules that know the values set them.
completers: dict[str, Callable[[click.Context], Iterable[str]]] = {}


if TYPE_CHECKING:
    AnyType = click.ParamType[Any]
else:
    AnyType = click.ParamType  # click before 8.4 has no generic type


class WordList(AnyType):
    """The click type of an option that takes a value, or several values separated by commas.

    ``kind`` is the kind of value, e.g. ``backend``. Shell completion suggests values of this kind.
    """

    name = "text"

    def __init__(self, kind: str = "", split: Callable[[str], list[str]] | None = None) -> None:
        self.kind, self.split = kind, split
        self.name = kind or self.name  # --help shows this name: --dtype DTYPE

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a value or a tuple of values; raise ``BadParameter`` if one of them is empty."""
        if isinstance(value, tuple):
            return value
        if self.split is None:
            return as_label(str(value)) if self.kind == "backend" else str(value)
        parts = self.split(str(value))
        if not all(part.strip() for part in parts):
            raise click.BadParameter(f"empty item next to a comma in {value!r}", ctx, param)
        return tuple(part.strip() for part in parts)

    def get_missing_message(self, param: Any, ctx: Any = None) -> str | None:
        known = completers.get(self.kind)
        return f"Installed: {', '.join(known(ctx))}" if known and self.kind == "backend" else None

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        # Values are separated by commas, as on the command line, and not by spaces.
        return [rv]

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        if kind := {"folder": "dir", "file": "file"}.get(self.kind):
            return [CompletionItem(incomplete, type=kind)]
        before, comma, unfinished = (
            incomplete.rpartition(",") if self.split else ("", "", incomplete)
        )
        known = completers[self.kind](ctx) if self.kind in completers else ()
        used = before.split(",")
        names = [name for name in known if name.startswith(unfinished) and name not in used]
        # A model may also be given as a file.
        files = [CompletionItem(incomplete, type="file")] if self.kind == "model" else []
        return [CompletionItem(before + comma + name) for name in names] or files


def by_commas(text: str) -> list[str]:
    return text.split(",")


def split_folders(text: str) -> list[str]:
    return [text] if os.path.exists(text) else text.split(",")


def flat(ctx: click.Context, param: click.Parameter, value: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(part for item in value for part in item)


def as_paths(ctx: click.Context, param: click.Parameter, value: Iterable[Any]) -> tuple[Path, ...]:
    return tuple(Path(part) for item in value for part in item)


def number(allowed: Range) -> Callable[[Any], Any]:
    """Return the click type of an option that takes a number in the range ``allowed``."""

    def read(value: Any) -> Any:
        try:
            return allowed.read(value) if isinstance(value, str) else allowed.check(value)
        except UsageError as error:
            raise click.BadParameter(str(error)) from None

    read.__name__ = "integer" if allowed.whole else "float"  # --help shows this name
    return read


def as_label(item: str) -> str:
    """Convert a pinned version at the start of a text to a label: ``torch==2.6`` becomes
    ``torch@2.6``."""
    pinned = _PINNED.match(item)
    if pinned is None:
        return item
    return f"{pinned[1]}@{pinned[2].removesuffix('.*')}{item[pinned.end() :]}"


def pairs(option: str, items: Sequence[str], form: str = "NAME=VALUE") -> dict[str, str]:
    """Parse ``NAME=VALUE`` items; return a dictionary from name to value. ``option`` names the
    option in messages.

    Raise :class:`UsageError` for an item of another format; its message shows ``form``, the
    expected format.
    """
    values: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not name or not equals or not value:
            raise UsageError(f"{option} takes {form}, found {item!r}")
        if name in values:
            raise UsageError(f"{option} gives {name!r} twice: {values[name]!r} and {value!r}")
        values[name] = value
    return values


def interpreters(items: Sequence[str], backends: Callable[[], Sequence[str]]) -> dict[str, str]:
    """Parse ``[BACKEND=]INTERPRETER`` items; return a dictionary from backend to interpreter.

    An item without a backend applies to all backends that ``backends()`` returns.

    Raises:
        UsageError: two items have no backend, or the same backend.
    """
    items = [as_label(item) for item in items]
    bare = [item for item in items if not _has_name(item)]
    by_backend = pairs("--python", [item for item in items if item not in bare])
    if len(bare) > 1:
        raise UsageError(
            f"--python gives two interpreters for all backends, {bare[0]!r} and {bare[1]!r}: give "
            "only one, or write BACKEND=INTERPRETER"
        )
    return {**(dict.fromkeys(backends(), bare[0]) if bare else {}), **by_backend}


def _has_name(item: str) -> bool:
    return "=" in item and "/" not in item.partition("=")[0]


def variables(
    items: Sequence[str], backends: Callable[[], Sequence[str]]
) -> dict[str, dict[str, str]]:
    """Parse ``[BACKEND:]NAME=VALUE`` items; return the environment variables: backend -> name ->
    value.

    An item without a backend applies to all backends that ``backends()`` returns.

    Raises:
        UsageError: an item has a wrong format.
    """
    by_backend: dict[str, dict[str, str]] = {}
    for item in map(as_label, items):
        target, equals, value = item.partition("=")
        backend, colon, name = target.rpartition(":")
        if not equals or not name or (colon and not backend):
            raise UsageError(f"--env takes [BACKEND:]NAME=VALUE, found {item!r}")
        for target_backend in [backend] if colon else backends():
            by_backend.setdefault(target_backend, {})[name] = value
    return by_backend


def only(option: str, given: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    """Return the value for the backend ``name`` from ``given``, which maps backends to values. If
    there is none, return ``otherwise``.

    Commands that run a single backend call this function for options such as ``--python``. Raise
    :class:`UsageError` if ``given`` has a value for a different backend; the message names the
    ``option``.
    """
    for other in given:
        if other != name:
            raise UsageError(
                f"{option} is given for {other!r}, which is not run here"
                f"{did_you_mean(other, [name])} (run: {name})"
            )
    return given.get(name, otherwise)


class ProcessOptions(Protocol):
    """Options for the process of a single backend: its Python interpreter and environment
    variables."""

    @property
    def python(self) -> str | None:
        """The interpreters as one text: ``[BACKEND=]INTERPRETER`` items, separated by commas."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables: values by ``[BACKEND:]NAME``."""


def one_interpreter(items: Sequence[str]) -> str:
    """Join ``[BACKEND=]INTERPRETER`` items to one text, separated by commas. Raise
    :class:`UsageError` if two items are for the same backend.

    The item without a backend comes first: when the text is split again (by :data:`NEXT_NAME`),
    only commas before a backend's name separate items.
    """
    interpreters(items, tuple)
    return ",".join(sorted(items, key=_has_name))


def named_variables(items: Sequence[str]) -> dict[str, str]:
    """Parse ``[BACKEND:]NAME=VALUE`` items; return a dictionary from ``[BACKEND:]NAME`` to the
    value. Raise :class:`UsageError` for a wrong format."""
    variables(items, tuple)
    return {name: value for name, _, value in (as_label(item).partition("=") for item in items)}


def interpreter_of(python: str | None, name: str, default: str) -> str:
    """Return the Python interpreter for a command that runs the single backend or format ``name``.
    ``python`` has the user's ``[BACKEND=]INTERPRETER`` items; without a matching item, return
    ``default``.

    Raises:
        UsageError: an interpreter is given for another backend or format.
    """
    by_backend = interpreters(NEXT_NAME.split(python) if python else (), partial(tuple, (name,)))
    interpreter: str = only("--python", by_backend, name, default)
    return interpreter


def process_of(asked: ProcessOptions, name: str, python: str) -> tuple[str, dict[str, str]]:
    """Return two things for a command that runs the single backend ``name``: the interpreter and
    the environment variables. ``asked`` has the user's options, and ``python`` is the default
    interpreter."""
    items = [f"{variable}={value}" for variable, value in asked.environment.items()]
    environment = variables(items, partial(tuple, (name,)))
    return interpreter_of(asked.python, name, python), only("--env", environment, name, {})


def numbers(items: Sequence[str]) -> dict[str, int]:
    """Parse ``NAME=NUMBER`` items; return a dictionary from name to number. The numbers are
    positive integers."""
    return {
        name: int(SIZES.read(value, f"--size {name}"))
        for name, value in pairs("--size", items, "NAME=NUMBER").items()
    }


def whole_numbers(option: str, parts: Sequence[str]) -> tuple[int, ...]:
    """Parse the texts ``parts`` as positive integers, and drop duplicates. ``option`` names the
    option in messages.

    Raises:
        UsageError: a part is not a number in the allowed range.
    """
    numbers_ = []
    for part in parts:
        try:
            numbers_.append(int(SIZES.read(part)))
        except UsageError:
            raise UsageError(
                f"{option} takes positive whole numbers, found {part!r} in {','.join(parts)!r} "
                f"(allowed: 1 to {SIZES.most:,})"
            ) from None
    return tuple(dict.fromkeys(numbers_))


def share(text: str) -> float:
    """Parse a share, such as ``10%`` or ``0.1``, and return it as a number: 0.1.

    Raises:
        UsageError: the text is not a share in the allowed range.
    """
    percent = text.endswith("%")
    try:
        value = float(THRESHOLD.read(text.removesuffix("%"))) / (100 if percent else 1)
    except UsageError:
        raise UsageError(
            f"--threshold takes a share such as 10% or 0.1, found {text!r} "
            f"(allowed: {THRESHOLD.least:,.0f} to {THRESHOLD.most:,.0f})"
        ) from None
    if value >= 1 and not percent:
        raise UsageError(
            f"--threshold takes a share such as 10% or 0.1, found {text!r}: write {text}% for "
            f"{text} percent (a share without % is below 1)"
        )
    return value
