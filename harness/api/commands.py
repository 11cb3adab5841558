"""Python functions of the commands whose results have no class of their own; they return a
``CommandResult``.

``commands.pyi`` shows their signatures to editors and type checkers. docs/options.py writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.api import arguments
from harness.api.arguments import takes_options
from harness.command.declared import check_ranges, make_options
from harness.command.outcome import CommandResult
from harness.command.verbs import Verb
from harness.commands import cli
from harness.files.system import check_variable
from harness.output.printing import silent

RESULT = """\
    Returns:
        The outcome: ``exit_code``, and ``json()`` with the data that the command prints with
        ``--json``. ``print`` shows the text of the command.

    Raises:
        HarnessError: an argument is wrong, or the work cannot be done.
    """


def function_of(command: str, name: str = "") -> Callable[..., CommandResult]:
    """Return the Python function of a command, e.g. of ``explain``. ``name`` is the name of the
    function if it differs from the command, e.g. ``import_``."""
    verb = cli.commands[command]
    assert isinstance(verb, Verb)

    def call(**options: Any) -> CommandResult:
        values = arguments.of(verb.declared, options)
        command_options = make_options(verb.declared, values)
        check_ranges(command_options)
        check_variable()
        with silent():
            outcome: CommandResult = verb.prepare(command_options)()
        return outcome

    call.__name__ = call.__qualname__ = name or command
    call.__doc__ = f"{verb.help}\n\n{RESULT}"
    return takes_options(verb.declared)(call)


cache = function_of("cache")
differences = function_of("differences")
env = function_of("env")
explain = function_of("explain")
export = function_of("export")
fuzz = function_of("fuzz")
import_ = function_of("import", "import_")
list_ = function_of("list", "list_")
localise = function_of("localise")
merge = function_of("merge")
new_backend = function_of("new-backend", "new_backend")
port = function_of("port")
reduce = function_of("reduce")
replay = function_of("replay")
schema = function_of("schema")
upgrade = function_of("upgrade")
write_report = function_of("report", "write_report")
