"""Commands with sections in their help, and with user-defined defaults of their options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from harness.command import settings
from harness.command.declared import SECTIONS, make_options, options_of, values
from harness.command.help import CHAPTERS, FoldedContext, help_of, narrow, section
from harness.command.options import completers
from harness.errors import UsageError, closest, did_you_mean, shorten
from harness.output.printing import emit

# A key in the context of a command: True if its help shows all options.
ALL = f"{__name__}.all"
# Kinds of values that are equal on every machine; ``--help-all`` lists these values.
FIXED = frozenset({"dtype", "path", "mode", "phase", "want"})
# Former names of options and names that other commands use, each with its replacement.
FORMER: Mapping[str, Mapping[str, str]] = {
    "bench": {"--compare": "--baseline FILE"},
    "compare": {"--markdown": "--print-markdown"},
    "differences": {"--markdown": "--print-markdown"},
    "report": {"--html": "-o NAME.html", "--markdown": "-o NAME.md", "--junit": "-o NAME.xml"},
}

# The command to suggest if a user gives an unexpected argument to a command.
MEANT: Mapping[str | None, str] = {"list": "harness explain"}


class Verb(click.Command):
    """A command whose help has sections, and whose options may have user-defined defaults.

    ``declared`` is the dataclass of the options; its docstring is the help text of the command.
    ``work`` is a function that takes an object of this class, or the name of the function as
    ``"module:function"``.
    """

    context_class = FoldedContext

    def __init__(self, name: str, declared: type, work: str | Callable[[Any], Any]) -> None:
        self.work, self.declared = work, declared
        params = [one.param() for one in options_of(declared) if one.word]
        super().__init__(name, params=params, help=inspect.getdoc(declared))

    def parse_options(self, given: Mapping[str, Any]) -> Any:
        """Convert click's values to an object of the options class.

        Raises:
            UsageError: an option has a wrong format.
        """
        return make_options(self.declared, values(self.declared, given))

    def prepare(self, options: Any) -> Callable[[], Any]:
        """Import the function that does the command's work. Return a function without arguments
        that calls it with ``options``."""
        if not isinstance(self.work, str):
            return partial(self.work, options)
        module, _, function = self.work.partition(":")
        return partial(getattr(import_module(module), function), options)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        name = info_name or ""
        for option in _options(self):
            option.envvar = settings.variables(name, _word(option))
        if parent is not None and not {"--help", "--help-all", "-h"} & {*args}:
            try:
                extra["default_map"] = _defaults(parent, self, name)
            except click.UsageError:
                if not extra.get("resilient_parsing"):  # a shell completes as much as possible
                    raise
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments like click, but with more informative errors.

        If an option was renamed, the error names the new option. If a default is wrong, the error
        names the file or variable that sets it.

        Raises:
            UsageError: as in click; an option is unknown, or has been renamed.
            BadParameter: a value is wrong.
        """
        for argument in args:
            new = FORMER.get(self.name or "", {}).get(argument.partition("=")[0])
            if new:
                raise click.UsageError(f"there is no {argument.partition('=')[0]}; use {new}", ctx)
        words = [word for word in args if not word.startswith("-")]  # click empties the list
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            others = _with_option(ctx, error.option_name)
            if not others:
                raise
            guess = closest(error.option_name.lstrip("-"), map(_word, _options(self)))
            hint = f"did you mean --{guess}?" if guess else others
            message = f"{ctx.command_path} has no option {error.option_name}; {hint}"
            raise click.UsageError(message, ctx) from None
        except click.BadParameter as error:
            origin = _origin(ctx, error.param) if error.param is not None else ""
            if not origin:
                raise
            message = f"{error.message} (from {origin})"
            raise click.BadParameter(message, ctx, error.param, error.param_hint) from None
        except click.UsageError as error:
            if not words or self.name not in MEANT:
                raise
            hint = f"; did you mean '{MEANT[self.name]} {words[0]}'?"
            raise click.UsageError(error.message + hint, ctx) from None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters that click has for the command, and the parameter
        ``--help-all``."""
        *params, short = super().get_params(ctx)
        return [*params, HELP_ALL, short]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the most common options; with ``--help-all``, write all
        options."""
        help_data = help_of(self.name or "")
        section(formatter, "Examples", [(example, "") for example in help_data.get("examples", ())])
        show_all, usual = ctx.meta.get(ALL, False), help_data.get("usual", "").split()
        by_section: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            own = getattr(param, "section", "")
            if own and usual and not show_all and _word(param) not in usual:
                continue
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                if show_all and (known := _choices(ctx, param)):
                    record = (record[0], f"{record[1]}  [choices: {', '.join(known)}]")
                by_section.setdefault(own, []).append(record)
        for title in SECTIONS:
            section(formatter, title, by_section.get(title, ()))
        section(formatter, "Further options", by_section.get("", ()))


class Verbs(click.Group):
    """The group of all commands. Its help lists the commands in sections, each with the first
    sentence of its help."""

    context_class = FoldedContext

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        # The contexts of commands inherit this width.
        return super().make_context(info_name, args, parent, **narrow(), **extra)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        not_listed = {name: (name, _sentence(command)) for name, command in self.commands.items()}
        for title, names in CHAPTERS.items():
            section(formatter, title, [not_listed.pop(n) for n in names.split() if n in not_listed])
        section(formatter, "Further commands", not_listed.values())

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name, as click does. For an unknown name, the
        ``UsageError`` suggests a known command."""
        name = args[0]
        if name in self.commands or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        hint = did_you_mean(name, self.commands)
        if name == "help":
            command = next((f"{word} " for word in args[1:] if word in self.commands), "")
            hint = f"; did you mean 'harness {command}--help'?"
        elif name.endswith((".yaml", ".yml")) or Path(name).is_file():
            hint = f"; did you mean 'harness check {name}'?"
        raise click.UsageError(f"no such command {name!r}{hint}", ctx)

    def vocabulary(self) -> dict[str, list[str]]:
        """Return a dictionary from each command to the names of its options, without their
        dashes."""
        return {name: [*map(_word, _options(c))] for name, c in self.commands.items()}


def _with_option(ctx: click.Context, option: str) -> str:
    """Return a text about other commands that have ``option``, which this command lacks, e.g.
    ``check and bench have it``; return "" if no command has the option."""
    group = ctx.parent.command if ctx.parent is not None else None
    words = group.vocabulary() if isinstance(group, Verbs) else {}
    commands = [name for name, known in words.items() if option.lstrip("-") in known]
    *others, last = commands or [""]
    return f"{', '.join(others)} and {last} have it" if others else last and f"{last} has it"


def _show_all(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the help with all options, and exit."""
    if value and not ctx.resilient_parsing:
        ctx.meta[ALL] = True
        emit(f"{ctx.get_help()}\n")
        ctx.exit()


HELP_ALL = click.Option(
    ["--help-all"],
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_all,
    help="Show all options, with choices and defaults, and exit.",
)


def _choices(ctx: click.Context, param: click.Option) -> list[str]:
    """Return the allowed values of an option that takes only fixed values; otherwise an empty
    list."""
    kind = getattr(param.type, "kind", "")
    return [*completers[kind](ctx)] if kind in FIXED and kind in completers else []


def _options(command: click.Command) -> list[click.Option]:
    return [p for p in command.params if isinstance(p, click.Option)]


def _word(option: click.Parameter) -> str:
    """Return an option's long name without its dashes."""
    return max(option.opts, key=len).lstrip("-")


def _sentence(command: click.Command) -> str:
    paragraph = inspect.cleandoc(command.help or "").partition("\n\n")[0]
    return " ".join(paragraph.split()).partition(". ")[0].rstrip(".")


def _defaults(parent: click.Context, command: click.Command, name: str) -> dict[str, Any]:
    """Return the option defaults of a command that the user's file sets, as the dictionary that
    click expects.

    Raises:
        UsageError: the file or a variable is wrong.
    """
    group = parent.command
    if not isinstance(group, Verbs) or name not in group.commands:
        return {}
    vocabulary = group.vocabulary()
    try:
        settings.check_variables(vocabulary)
        file_settings = settings.settings(name, vocabulary)
        parent.meta[__name__] = {}
        defaults = {}
        for option in _options(command):
            setting = file_settings.get(_word(option))
            if setting is not None and option.name is not None:
                value = _value(option, setting)
                if value is not None:
                    defaults[option.name] = value
                    parent.meta[__name__][option.name] = setting.place
        return defaults
    except UsageError as error:
        raise click.UsageError(str(error)) from None


def _value(option: click.Option, setting: settings.Setting) -> Any:
    """Convert a setting of the user's file to a value of an option.

    Return None if the setting is a list but the option takes one value. Such a setting applies to
    all commands, and is meant for those commands that take several values.
    """
    value, name = setting.value, _word(option)
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{setting.place}: {name!r} must be true or false, found {value!r}")
        return value
    is_mapping = "=" in (option.metavar or "")
    if isinstance(value, Mapping) and is_mapping:
        value = [f"{key}={entry}" for key, entry in value.items()]
    items = value if isinstance(value, list) else [value]
    if not items or any(isinstance(item, list | dict | bool) for item in items):
        expected = (
            "a text, a number or a list of these" if option.multiple else "a text or a number"
        )
        expected += ", or a table with names as keys" if is_mapping else ""
        raise UsageError(
            f"{setting.place}: {name!r} must be {expected}, found {shorten(repr(value))}"
        )
    items = [_resolve_path(setting, option, str(item)) for item in items]
    if option.multiple:
        return items
    if len(items) == 1:
        return items[0]
    if setting.own:
        raise UsageError(f"{setting.place}: {name!r} must be one value here, found {len(items)}")
    return None


def _resolve_path(setting: settings.Setting, option: click.Option, value: str) -> str:
    """Return the ``value`` of an option in the user's file. If the option is a path and the value
    is relative, join it to the folder of the file."""
    kind = getattr(option.type, "kind", "")
    if isinstance(option.type, click.Path) or kind == "folder":
        return str(setting.folder / value)
    # Interpreters, models, texts and data sets can also be given by name instead of path.
    name, equals, path = value.rpartition("=")
    if kind in ("file", "text", "data") and _is_path(setting.folder, path, option):
        return f"{name}{equals}{setting.folder / path}"
    return value


def _is_path(folder: Path, value: str, option: click.Option) -> bool:
    if "/" in value or _word(option) == "python":
        return "/" in value
    return (folder / value.partition(":")[0]).exists()


def origins(message: str) -> str:
    """Return a text that says where the wrong values in an error message were set, e.g. `` (--dtype
    is from pyproject.toml:5:1)``. Return "" if they are from the command line."""
    ctx = click.get_current_context(silent=True)
    notes = []
    for param in ctx.command.params if ctx is not None else ():
        assert ctx is not None
        origin, word = _origin(ctx, param), _word(param)
        if origin and _is_mentioned(word, ctx.params.get(param.name or ""), message):
            notes.append(f"--{word} is from {origin}")
    return f" ({'; '.join(notes)})" if notes else ""


def _is_mentioned(word: str, value: Any, message: str) -> bool:
    """Return whether an error message is about an option. It is if the message contains the
    option's name ``word``, or quotes the option's ``value`` or an item of this value."""
    values = [str(one) for one in (value if isinstance(value, tuple) else (value,))]
    parts = [part for one in values for part in (one, *one.split("=", 1))]
    quoted = any(repr(part) in message for part in parts)
    paths = any("/" in part and part in message for part in parts)
    return quoted or paths or re.search(rf"--{re.escape(word)}(?![\w-])", message) is not None


def _origin(ctx: click.Context, param: click.Parameter) -> str:
    """Return the name of the file or environment variable that sets an option. Return "" if the
    command line sets it, or if it has its built-in default."""
    name = param.name or ""
    source = ctx.get_parameter_source(name)
    if source is ParameterSource.DEFAULT_MAP:
        return str(ctx.meta.get(__name__, {}).get(name))
    if source is ParameterSource.ENVIRONMENT and isinstance(param.envvar, list):
        return f"the environment: {' or '.join(param.envvar)}"
    return ""
