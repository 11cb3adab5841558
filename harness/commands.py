"""The group of commands, to which each room adds its own, and ``check``.

``check`` is here since it uses rooms that stand above that of checks: reports, reproducers for
others, and a user's own numbers. What a command needs beside click is imported when it is run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import click

from harness.checking import commands as check_commands
from harness.checking import completion as check_completion
from harness.checking.options import CheckOptions
from harness.command.declared import takes
from harness.command.interrupts import stoppable
from harness.command.verbs import Verbs, origins
from harness.comparison import commands as comparison_commands
from harness.convert import commands as convert_commands
from harness.defaults import commands as defaults_commands
from harness.defaults import completion as defaults_completion
from harness.demo import commands as demo_commands
from harness.environments import commands as environments_commands
from harness.errors import HarnessError, SpecError, SpecErrors
from harness.files.system import check_workers
from harness.given import commands as given_commands
from harness.language import commands as spec_commands
from harness.output.printing import tell
from harness.report import commands as report_commands
from harness.timing import commands as bench_commands
from harness.training import commands as train_commands
from harness.upstream import commands as upstream_commands

Command = Callable[..., Any]
# Commands that start no backend, or only with an option.
WITHOUT_WORKERS = frozenset(
    {"list_command", "explain", "differences", "report", "compare", "merge"}
)
# Where the values that shells complete are filled in, when they are imported.
COMPLETIONS = (check_completion, defaults_completion)


def friendly(command: Command) -> Command:
    """A user's error is a message and exit code 2, never a traceback."""

    @wraps(command)
    def run(*arguments: Any, **given: Any) -> Any:
        try:
            if command.__name__ not in WITHOUT_WORKERS:
                check_workers()
            return command(*arguments, **given)
        except HarnessError as error:
            text = f"{error}{_meant_for_a_list(given)}"
            text += origins(text)
            tell(text, error=True)
            _show_on_github(error, text)
            sys.exit(2)

    return run


def _show_on_github(error: HarnessError, text: str) -> None:
    """Show why a command did not run beside the lines at fault, and in the summary of the step."""
    from harness.output import github, markdown
    from harness.output.printing import annotate, annotating, say

    title = f"harness {click.get_current_context().info_name}"
    if annotating():
        errors = error.errors if isinstance(error, SpecErrors) else (error,)
        found = []
        for one in errors:
            place = one.place if isinstance(one, SpecError) else None
            told = one.message if isinstance(one, SpecError) and place else text
            found.append(github.annotation(title, told, [str(place)] if place else ()))
        for line in github.few(found):
            annotate(line)
    lines = [f"### {markdown.escaped(title)}: not run", ""]
    lines += [f"- {markdown.escaped(line)}" for line in text.splitlines()]
    if failed := github.summarise("\n".join([*lines, ""])):
        say(failed, error=True)


def _meant_for_a_list(given: Mapping[str, Any]) -> str:
    """What a SPEC that is a backend's name was meant to be: ``--backend torch jax``."""
    named = given.get("backends") or ()
    if not named or not given.get("specs"):
        return ""
    from harness.runtime.plugins import available

    strays = [name for name in given["specs"] if name in available()]
    return f"; {strays[0]} is a backend: --backend {','.join([*named, *strays])}" if strays else ""


@click.group(
    cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="backend-comparison-harness", prog_name="harness")
def cli() -> None:
    """Compare how frameworks run one model, declared once as data."""


def _holds_ended(records: Path) -> bool:
    from harness.results.file import holds_ended

    return holds_ended(records)


@takes(CheckOptions)
@friendly
@report_commands.reported("records", worth=_holds_ended)
def check(**given: Any) -> None:
    """Check backends against the oracle: all that are installed, on all of Lesson 6, if left out.

    Lesson 6 is the twelve small character models of fast.ai's notebook that ship as lesson6/NAME

    Exit code 0: all agree, or differ as known; 1: something differs; 2: wrong usage or a wrong
    spec; 3: a backend could not be run. With --baseline, 1: something is worse than it was there,
    and 0: nothing is.
    """
    from harness.checking.console import PrintOptions, run_check

    request, shown = request_of(given), PrintOptions.of(given)

    def run() -> int:
        if shown.reproducers is None:
            return run_check(request, sys.argv[1:], shown)
        from harness.upstream.bundle import Upstream

        with Upstream(request) as upstream:
            return run_check(request, sys.argv[1:], shown, upstream)

    def kept() -> str:
        if not request.records:
            return ""
        if not _holds_ended(request.records):
            return "no cell had ended yet"
        return f"cells that had ended are in {request.records}"

    sys.exit(stoppable(run, kept))


cli.command()(check)
cli.command()(friendly(report_commands.reported("records", junit=False)(bench_commands.bench)))
cli.command()(spec_commands.schema)
for name, command in {
    **{
        command.__name__: command
        for command in (
            *(check_commands.explain, check_commands.replay, check_commands.localise),
            *(comparison_commands.compare, comparison_commands.upgrade, comparison_commands.merge),
            *(upstream_commands.reduce, given_commands.run, demo_commands.demo),
            *(environments_commands.env, report_commands.report, train_commands.train),
            *(train_commands.generate, convert_commands.export, defaults_commands.differences),
        )
    },
    "list": check_commands.list_command,
    "import": convert_commands.import_,
}.items():
    cli.command(name)(friendly(command))


def request_of(given: Mapping[str, Any]) -> Any:
    """The request that command-line options stand for; :class:`UsageError` for a bad one."""
    from harness.environments.columns import of_command
    from harness.given.check_request import check_request

    return check_request(of_command(CheckOptions, given))
