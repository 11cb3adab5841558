"""User-defined defaults of options: from ``pyproject.toml`` and from ``HARNESS_*`` variables.

The file is the nearest ``pyproject.toml``, with the table ``[tool.harness]``. The order of priority
is: command line, environment, file, built-in default. A setting for one command has priority over a
setting for all commands. The harness trusts the file: it can set ``--python``, i.e. choose a
program to run.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import Place, UsageError, closest, shorten
from harness.files.user_file import MIB, FileFault, displayed, read_bytes

MAX_SETTINGS = MIB
MAX_PARTS = 100
NAME = "pyproject.toml"
TABLE = ("tool", "harness")
PREFIX = "HARNESS_"
# Variables that the harness reads, but that are not defaults of options.
OTHERS = (
    *("HARNESS_COMPILED_CODE", "HARNESS_CORPUS", "HARNESS_FUZZ", "HARNESS_INTERRUPT_STEP"),
    *("HARNESS_RANDOM_MODELS", "HARNESS_WORKER"),
)
# Commands without a table in the file, because the table ``env`` has the variables of ``--env``.
NO_TABLES = frozenset({"env"})
# The place of an error in a message of tomllib.
_PLACED = re.compile(r"(.*?) \(at line (\d+), column (\d+)\)", re.DOTALL)
# The options of each command, without their dashes.
Vocabulary = Mapping[str, Iterable[str]]


@dataclass(frozen=True)
class Setting:
    """A default value from the file ``pyproject.toml``. ``place`` is its line and column, and
    ``folder`` the folder of the file. ``own`` is True if the default is for one command, and False
    if it is for all commands."""

    value: Any
    place: Place
    own: bool  # True if the setting is for a single command, False if for all commands
    folder: Path  # the folder of the file; relative paths start there


def settings(command: str, known: Vocabulary, start: Path | None = None) -> dict[str, Setting]:
    """Return the defaults that the file ``pyproject.toml`` sets for a command, by option name. The
    result is empty if there is no file. ``known`` has the options of every command. The search for
    the file starts in the folder ``start``.

    Raises:
        UsageError: the file cannot be read, or contains a key that is neither a command nor an
            option.
    """
    path = find_file(start or Path.cwd())
    text = "" if path is None else _text(path)
    if path is None or "harn" not in text.lower():
        return {}
    table = _table(path, text)
    settings_: dict[str, Setting] = {}
    commands = known.keys() - NO_TABLES
    for for_command in (False, True):
        command_table = table.get(command, {}) if command in commands else {}
        for key, value in (command_table if for_command else table).items():
            place = _key_place(path, text, key, command if for_command else "")
            if not for_command and key in commands:
                _check_command(path, text, key, value, known)
            elif key not in (known[command] if for_command else _all(known)):
                raise _unknown(
                    key, place, known[command] if for_command else [*known, *_all(known)]
                )
            elif for_command or key in known[command]:
                if _holds_nul(value):  # file names and other values must not contain NUL
                    raise UsageError(f"{place}: the value of {key!r} contains a NUL character")
                settings_[key] = Setting(value, place, for_command, path.parent)
    return settings_


def find_file(folder: Path) -> Path | None:
    """Return the nearest ``pyproject.toml`` in a folder or its parents. The search ends at the root
    of the Git repository."""
    for place in (folder, *folder.parents):
        if (place / NAME).is_file():
            return place / NAME
        if (place / ".git").exists():
            return None
    return None


def variables(command: str, option: str) -> list[str]:
    """Return the names of the environment variables that set an option's default, e.g.
    ``HARNESS_CHECK_SEED`` and ``HARNESS_SEED``. The first has priority."""
    word = option.upper().replace("-", "_")
    return [f"{PREFIX}{command.upper()}_{word}", f"{PREFIX}{word}"]


def check_variables(known: Vocabulary) -> None:
    """Raise :class:`UsageError` if an environment variable looks like a misspelt variable of the
    harness, e.g. ``HARNESS_SEEDS``. ``known`` has the options of every command."""
    names = [name for name in os.environ if name.startswith(PREFIX)]
    if not names:
        return
    known_variables = {
        v for command, options in known.items() for o in options for v in variables(command, o)
    }
    for name in names:
        words = [one.removeprefix(PREFIX) for one in known_variables]
        guess = (
            None
            if name in known_variables or name in OTHERS
            else closest(name.removeprefix(PREFIX), words)
        )
        if guess is not None:
            raise UsageError(
                f"the harness has no environment variable {name}; did you mean {PREFIX}{guess}?"
            )


def _text(path: Path) -> str:
    try:
        return read_bytes(path, MAX_SETTINGS, "settings").decode()
    except FileFault as error:
        raise UsageError(f"cannot read the settings: {error}") from None
    except UnicodeDecodeError as error:
        row = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{displayed(path)}:{row}: this is not UTF-8 text") from None


def _table(path: Path, text: str) -> dict[str, Any]:
    """Return the table ``[tool.harness]``, or an empty table if it is missing."""
    import tomllib

    _check_keys(path, text)
    try:
        parsed: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        placed = _PLACED.fullmatch(str(error))
        what = placed[1] if placed else str(error)
        place = Place(displayed(path), *(map(int, placed.groups()[1:]) if placed else ()))
        raise UsageError(f"{place}: this is not valid TOML: {what}") from None
    except ValueError:
        # A plain ValueError means an integer with more digits than Python reads.
        raise UsageError(_too_long(path, text)) from None
    except RecursionError:
        raise UsageError(f"{displayed(path)}: lists or tables are nested too deep") from None
    tool_tables = parsed.get(TABLE[0])
    tool_tables = tool_tables if isinstance(tool_tables, dict) else {}
    name = ".".join(TABLE)
    if TABLE[1] not in tool_tables:
        similar_names = [f"{TABLE[0]}.{tool}" for tool in tool_tables if _is_similar(tool)]
        for wrong in similar_names or [key for key in parsed if key == TABLE[1]]:
            place = _header_place(path, text, wrong)
            raise UsageError(f"{place}: the table must be named [{name}], found [{wrong}]")
        return {}
    table = tool_tables[TABLE[1]]
    if not isinstance(table, dict):
        what = "several tables" if isinstance(table, list) else shorten(repr(table))
        raise UsageError(
            f"{displayed(path)}: {name} must be a single table of options, found {what}"
        )
    return table


def _check_keys(path: Path, text: str) -> None:
    """Reject keys with so many dots that tomllib would take minutes and gigabytes."""
    for number, row in enumerate(text.splitlines(), start=1):
        key = row.split("=", 1)[0]
        if key.count(".") >= MAX_PARTS and re.fullmatch(r"[\w\-.\"' \t\[\]]*", key):
            place, parts = Place(displayed(path), number, 1), key.count(".") + 1
            raise UsageError(
                f"{place}: a key with {parts:,} parts; at most {MAX_PARTS} are allowed"
            )


def _too_long(path: Path, text: str) -> str:
    """Return the message that an integer has too many digits, with its line and column."""
    most = sys.get_int_max_str_digits()
    lengths = ((found.start(), len(found[0])) for found in re.finditer("[0-9_]+", text))
    start, digits = next((each for each in lengths if each[1] > most), (0, most + 1))
    row, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
    place = Place(displayed(path), row, column)
    return f"{place}: an integer with {digits:,} digits; at most {most:,} are allowed"


def _header_place(path: Path, text: str, table_name: str) -> Place:
    """Return the line and column of the header of the table ``table_name``, or the position of the
    whole file if the header is not found."""
    for number, row in enumerate(text.splitlines(), start=1):
        header = re.sub(r"[\s\"'\[\]]", "", row)
        if row.lstrip().startswith("[") and f"{header}.".startswith(f"{table_name}."):
            return Place(displayed(path), number, 1)
    return Place(displayed(path))


def _holds_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_nul, value.values()))
    if isinstance(value, list):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\0" in value


def _is_similar(tool: str) -> bool:
    """Return whether the table ``[tool.NAME]`` has almost the name of the harness, and is therefore
    probably misspelt."""
    return difflib.SequenceMatcher(None, tool.lower(), TABLE[1]).ratio() > 0.85


def _all(known: Vocabulary) -> set[str]:
    return {option for options in known.values() for option in options}


def _check_command(path: Path, text: str, name: str, table: Any, known: Vocabulary) -> None:
    """Check the settings of a command that is not running now, so that errors appear before the
    user runs that command."""
    if not isinstance(table, dict):
        place = _key_place(path, text, name, "")
        value_text = shorten(repr(table))
        raise UsageError(
            f"{place}: the options of 'harness {name}' must be a table, found {value_text}"
        )
    for key in table:
        if key not in known[name]:
            raise _unknown(key, _key_place(path, text, key, name), known[name])


def _unknown(key: str, place: Place, allowed: Iterable[str]) -> UsageError:
    names = sorted({*allowed})
    guess = closest(shorten(key), names)
    hint = f"; did you mean {guess!r}?" if guess else f" (known: {', '.join(names)})"
    return UsageError(f"{place}: there is no option {shorten(key)!r}{hint}")


def _key_place(path: Path, text: str, key: str, command: str) -> Place:
    """Return the line and column of a key, which tomllib does not report. If the key is not found,
    return the position of the whole file."""
    header = ""
    table_name = ".".join((*TABLE, *filter(None, [command])))
    key_pattern = re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*[.=]""")
    for number, row in enumerate(text.splitlines(), start=1):
        if header_match := re.match(r"\s*\[([^\]]*)\]", row):
            header = re.sub(r"[\s\"']", "", header_match[1])
            if header == f"{table_name}.{key}":
                return Place(displayed(path), number, 1)
        elif header == table_name and key_pattern.match(row):
            return Place(displayed(path), number, len(row) - len(row.lstrip()) + 1)
    return Place(displayed(path))
