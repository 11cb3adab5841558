"""Entry point of the command ``harness``, which turns errors and signals into exit codes.

The module imports almost nothing before the signal handlers are installed. The commands are in
:mod:`harness.commands`.
"""

from __future__ import annotations

import os
import sys

from harness.command import interrupts

TYPE_CHECKING = False  # like typing.TYPE_CHECKING, without the import
if TYPE_CHECKING:
    from typing import Any

# Variable that a shell sets when it asks for completions.
COMPLETE = "_HARNESS_COMPLETE"
# Exit code that shells report for SIGPIPE: 128 plus 13.
CLOSED_PIPE = 141
# EX_SOFTWARE of sysexits.h. Python exits with 1, which here means that a check found a difference.
UNEXPECTED = 70


def main() -> None:
    """Run the command line ``harness`` and exit with the exit code of the command."""
    interrupts.arm()
    _open_standard_files()
    try:
        code = _run()
    except (Exception, SystemExit):
        code = _show_unexpected()
    interrupts.disarm()
    if code == interrupts.INTERRUPTED:
        # Threads may still compute, but nobody needs their results.
        interrupts.leave()
    sys.exit(code)


def __getattr__(name: str) -> Any:
    # The group of commands, for programs that run it in their own process.
    if name != "cli":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from harness.commands import cli

    return cli


def _open_standard_files() -> None:
    """Open descriptors 0, 1 and 2 on the null device if they are closed. Otherwise a file opened
    later could become standard input or output."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _show_unexpected() -> int:
    """Write the traceback of the current error and return the exit code. The function imports no
    module of the harness, because a broken module may be the cause of the error."""
    import contextlib
    import traceback

    text = (
        f"{traceback.format_exc()}this is an error in the harness itself (exit code {UNEXPECTED}), "
        "not a difference between backends: please report it with the lines above\n"
    )
    printable = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    with contextlib.suppress(OSError):
        os.write(2, printable.encode())
    return UNEXPECTED


def _run() -> int:
    from harness.errors import EXIT_USAGE
    from harness.output import printing

    printing.guard_streams()
    try:
        code = _command()
        sys.stdout.flush()
        return code
    except printing.OutputLost as lost:
        printing.abandon_output()
        if lost.closed:
            return CLOSED_PIPE
        printing.tell(f"cannot write the output: {lost}", error=True)
        return EXIT_USAGE


def _command() -> int:
    import click

    from harness.commands import cli
    from harness.errors import EXIT_PASSED, EXIT_USAGE, HarnessError
    from harness.output.printing import tell

    try:
        if COMPLETE in os.environ:
            from harness.command import completion

            completion.register(COMPLETE)
        return int(cli(standalone_mode=False) or EXIT_PASSED)
    except SystemExit as exit_:
        if isinstance(exit_.code, int | None):
            return exit_.code or EXIT_PASSED
        raise
    except click.ClickException as error:
        tell(_error_text(error), error=True)
        return error.exit_code
    except HarnessError as error:
        tell(str(error), error=True)
        return EXIT_USAGE
    except MemoryError as error:
        tell(f"there is not enough memory: {error}".removesuffix(": "), error=True)
        return EXIT_USAGE


def _error_text(error: Any) -> str:
    """Return the text of an error of click in the harness's style: message first, then usage."""
    message: str = error.format_message().rstrip(".")
    # Lower the first letter of click's own messages, but not of names and options.
    if message[1:2].islower():
        message = message[0].lower() + message[1:]
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    usage = " ".join(context.get_usage().removeprefix("Usage: ").split())
    option = "--help-all" if context.parent is not None else "--help"
    return f"{message}\nusage: {usage}; '{context.command_path} {option}' lists all options"
