"""Declaration of options as fields of a dataclass, for the command line, Python and pytest.

The type of a field determines how its value is read; :class:`Option` has all other properties. This
module makes the command line from the fields. :mod:`harness.api.arguments` makes the Python
functions, and :mod:`harness.suite.options` the options of pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, TypeVar

import click

from harness.command.options import (
    FILE,
    FOLDER,
    NEXT_NAME,
    WordList,
    as_paths,
    by_commas,
    flat,
    named_variables,
    number,
    numbers,
    one_interpreter,
    pairs,
    share,
    split_folders,
    whole_numbers,
)
from harness.command.ranges import Range
from harness.runs.shards import Shard

R = TypeVar("R")
# The sections of a command's help, in order.
SECTIONS = ("What to run", "What to list", "How to run it", "What to keep", "What to print")
RUN, LIST, HOW, KEEP, PRINT = SECTIONS
# Functions that convert click's value of an option to the value of a field, by type.
READERS: Mapping[str, Callable[[Any, str], Any]] = {
    "Mapping[str, int]": lambda value, word: numbers(value),
    "Mapping[str, tuple[int, ...]]": lambda value, word: {
        name: whole_numbers(f"{word} {name}", parts.split(","))
        for name, parts in pairs(word, value, "NAME=N,N").items()
    },
    "tuple[int, ...]": lambda value, word: whole_numbers(word, value),
    "Shard": lambda value, word: Shard.read(value),
    "float SHARE": lambda value, word: share(value),
    # An interpreter may be preceded by the name of a backend, which is checked later.
    "str [BACKEND=]INTERPRETER": lambda value, word: one_interpreter(value),
    "Mapping[str, str] [BACKEND:]NAME=VALUE": lambda value, word: named_variables(value),
}


@dataclass(eq=False)  # about 200 instances at each start, so keep the class cheap
class Option:
    """An option of a command.

    Attributes:
        help: The help text, in sentences.
        section: The section of the help that lists the option.
        word: The name on the command line, if different from the field's name. A name without
            dashes is an argument; "" means that the command line does not have the option.
        short: The one-letter name on the command line.
        kind: The kind of value, e.g. ``backend``, for shell completion.
        allowed: The range of a number.
        unit: The number by which the value is multiplied. For an option in MiB it is 2 ** 20, so
            that the program gets bytes.
        metavar: The placeholder of the value in the help.
        shown: True if the help shows the default, because ``help`` does not mention it.
        decides: True if the option affects the result of a cell. Two record files can be joined
            only if they have the same value of the option. The command that reruns a cell has the
            option.
        suite: The name of the option in pytest; "" for none.
        python: The help text for Python, if different from ``help``; None if the Python function
            does not have the option.
        name, type, default: The name, type and default of the field.
    """

    help: str
    section: str = RUN
    word: str | None = None
    short: str = ""
    kind: str = ""
    allowed: Range | None = None
    unit: int = 1
    metavar: str | None = None
    shown: bool = False
    decides: bool = False
    suite: str = ""
    python: str | None = ""
    name: str = ""
    type: str = ""
    default: Any = None

    @property
    def parameter(self) -> str:
        """The name under which click passes the value, e.g. ``no_color`` for the option
        ``--no-color``."""
        return f"no_{self.name}" if (self.word or "").startswith("--no-") else self.name

    def read(self, value: Any) -> Any:
        """Convert the value that click has parsed to the type of the field.

        Raises:
            UsageError: the text has a wrong format.
        """
        if self.type == "bool":
            return value != (self.parameter != self.name)
        read = READERS.get(f"{self.type} {self.metavar}") or READERS.get(self.type)
        return (
            read(value, self.word or "") if read else value * self.unit if self.unit != 1 else value
        )

    @property
    def json_type(self) -> str:
        """The type of the value in JSON."""
        return (
            self.type.replace("Mapping", "dict")
            .replace("Path", "str")
            .replace("tuple[str, ...]", "list[str]")
        )

    def words(self, value: Any) -> list[str]:
        """Return the command-line arguments that set the option to a value, e.g. ``["--seed",
        "3"]``. Return an empty list for the default value."""
        if value in (None, self.default) or value == [*_as_list(self.default)]:
            return []
        if value is True:
            return [f"{self.word}"]
        pairs = value.items() if isinstance(value, Mapping) else ()
        parts = [f"{name}={item}" for name, item in pairs] or _as_list(value)
        return [text for part in parts for text in (f"{self.word}", str(part))]

    def param(self) -> click.Parameter:
        """Return the click option, or click argument, that this option becomes on the
        command line."""
        word, several = self.word or "", self.type.endswith("...]")
        form, required = self._form(), self.default is MISSING
        if not word.startswith("-"):
            shape: dict[str, Any] = {"nargs": -1 if several else 1, "required": required}
            return click.Argument([self.name], metavar=self.metavar, **shape, **form)
        if required:
            form["required"] = True
        elif self.shown:
            form |= {"default": self.default, "show_default": True}
        words = [self.short, word] if self.short else [word]
        more: dict[str, Any] = {"help": self.help, "metavar": self.metavar, "section": self.section}
        if several or self.has_names:
            form["multiple"] = True
        if form.get("multiple") and form["type"] is not FILE:
            form["callback"] = as_paths if "Path, " in self.type else flat
        return SectionOption([*words, self.parameter], **more, **form)

    @property
    def has_names(self) -> bool:
        """True if the option takes values of the format NAME=VALUE."""
        return "=" in (self.metavar or "").replace("==", "")

    def _form(self) -> dict[str, Any]:
        is_list = self.type.endswith("...]") and (self.word or "").startswith("-")
        if self.type == "bool":
            return {"is_flag": True}
        if self.type == "tuple[str, str]":
            return {"nargs": 2, "type": WordList(self.kind)}
        if self.allowed is not None:
            return {"type": number(self.allowed)}
        if self.type == "tuple[Path, ...]" and self.kind == "folder":
            return {"type": WordList("folder", split_folders)}
        if self.type in ("Path", "Source", "tuple[Path, ...]"):
            return {"type": FOLDER if self.kind == "folder" else FILE}
        if self.has_names:
            return {"type": WordList(self.kind, NEXT_NAME.split)}
        return {"type": WordList(self.kind, by_commas if is_list else None)}


def _as_list(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]


class SectionOption(click.Option):
    """A click option that belongs to a section of the help."""

    def __init__(self, *words: Any, section: str = "", **more: Any) -> None:
        super().__init__(*words, **more)
        self.section = section


def option(default: Any, help_: str, **more: Any) -> Any:
    """Return a dataclass field that declares an option with the help text ``help_``. If the default
    is ``MISSING``, the option is required. ``more`` has further fields of :class:`Option`."""
    metadata = {"option": Option(help_, **more)}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def options_of(declared: type) -> Iterator[Option]:
    """Yield the options that a dataclass declares, in their order."""
    for field_ in fields(declared):
        declared_option = field_.metadata.get("option")
        if declared_option is not None:
            word = (
                f"--{field_.name.replace('_', '-')}"
                if declared_option.word is None
                else declared_option.word
            )
            kind = str(field_.type).removesuffix(" | None")
            factory = field_.default_factory
            default = field_.default if factory is MISSING else factory()
            yield replace(declared_option, word=word, name=field_.name, type=kind, default=default)


def values(declared: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values in ``given`` of those options that the dataclass ``declared`` has, by field
    name.

    ``given`` has the values that click has parsed.

    Raises:
        UsageError: a text does not fit its field.
    """
    return {
        option_.name: option_.read(given[option_.parameter])
        for option_ in options_of(declared)
        if given.get(option_.parameter) not in (None, ())
    }


def make_options(declared: type[R], given: Mapping[str, Any]) -> R:
    """Return an object of the options class ``declared`` with the values ``given``, by field name.

    The object itself stores only these values (``vars`` shows them); all other attributes are the
    defaults of the class.
    """
    options = object.__new__(declared)
    for option_ in options_of(declared):
        if isinstance(option_.default, dict):  # not a class attribute
            vars(options)[option_.name] = {}
    vars(options).update(given)
    return options


def build(request: Callable[..., R], given: Mapping[str, Any]) -> R:
    """Create an object of the dataclass ``request`` from values by field name. Values for which the
    dataclass has no field are ignored."""
    names = {each.name for each in fields(request)}  # type: ignore[arg-type]
    return request(**{name: value for name, value in given.items() if name in names})


def check_ranges(request: object) -> None:
    """Check that the numbers of a request are in the ranges that its options declare.

    Raises:
        UsageError: a number is out of range.
    """
    for option_ in options_of(type(request)):
        value, optional = getattr(request, option_.name), option_.default is None
        # The field of a memory limit is in bytes, but its range is in MiB, so skip it.
        if option_.allowed is not None and option_.unit == 1 and not (optional and value is None):
            option_.allowed.check(value, (option_.word or "") if optional else "")
