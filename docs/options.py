"""Write the files that are generated from the commands' options: ``python docs/options.py``.

These files are docs/command-line.md (the list of all options), harness/api/keywords.pyi (the types
of keyword arguments) and harness/api/commands.pyi (the signatures of functions). The test
``tests/project/test_options_page.py`` fails if a file is out of date.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import click

from harness.api import commands
from harness.api.arguments import annotation, arguments_of
from harness.checking.options import CellOptions, CheckOptions
from harness.commands import cli
from harness.demo.options import DemoOptions
from harness.given.options import PassOptions
from harness.timing.options import BenchOptions
from harness.training.generate.request import GenerateOptions
from harness.training.options import TrainOptions

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/command-line.md"
KEYWORDS = ROOT / "harness/api/keywords.pyi"
STUB = ROOT / "harness/api/commands.pyi"
# The option class of each function, and the function whose options it also has.
FUNCTIONS: dict[str, tuple[type, str]] = {
    "Cell": (CellOptions, ""),
    "Check": (CheckOptions, "Cell"),
    "Bench": (BenchOptions, ""),
    "Run": (PassOptions, ""),
    "Train": (TrainOptions, ""),
    "Generate": (GenerateOptions, ""),
    "Demo": (DemoOptions, ""),
}
# Options that functions take as explicit parameters; the other options are keyword arguments.
FIRST = {"specs", "backends", "spec", "backend", "prompt"}
HEAD = '''"""The types of what functions take by name, for editors and type checkers.

Written by docs/options.py from the options of commands.
"""

from collections.abc import Mapping
from os import PathLike
from typing import TypedDict

from harness.api.arguments import Folders, Names, Numbers
from harness.oracle.user_arrays import Numbers as Arrays
from harness.oracle.user_arrays import Source
from harness.program.ir import Phase
'''


def keywords() -> str:
    """Return the text of harness/api/keywords.pyi."""
    return HEAD + "".join(map("\n{}\n".format, _classes()))


def _classes() -> Iterator[str]:
    for name, (declared, base) in FUNCTIONS.items():
        before = {one.name for one in arguments_of(FUNCTIONS[base][0])} if base else FIRST
        if name == "Generate":
            before = {*before, "weights"}  # an explicit, required parameter
        parent = f"{base}Keywords" if base else "TypedDict"
        rows = [
            f"    {one.name}: {annotation(one)}"
            for one in arguments_of(declared)
            if one.name not in before
        ]
        yield "\n".join((f"class {name}Keywords({parent}, total=False):", *rows))


STUB_HEAD = '''"""The signatures of the functions of commands, written by docs/options.py."""

from collections.abc import Mapping
from os import PathLike

from harness.api.arguments import Folders, Models, Names, Numbers
from harness.command.outcome import CommandResult
from harness.language.model import Spec
'''


def stub() -> str:
    """Return the text of harness/api/commands.pyi."""
    return STUB_HEAD + "\n" + "".join(_signatures())


def _signatures() -> Iterator[str]:
    for name, function in vars(commands).items():
        if isinstance(function, FunctionType) and hasattr(function, "__signature__"):
            rows = ["def " + name + "("]
            before = None
            for one in inspect.signature(function).parameters.values():
                if one.kind is one.KEYWORD_ONLY and before is not one.KEYWORD_ONLY:
                    rows.append("    *,")
                before = one.kind
                default = "" if one.default is one.empty else " = ..."
                rows.append(f"    {one.name}: {one.annotation}{default},")
            yield "\n".join([*rows, ") -> CommandResult: ...\n"])


def page() -> str:
    """Return the text of docs/command-line.md, with the list of all options."""
    rows: dict[tuple[str, str], list[str]] = {}
    group = click.Context(cli, info_name="harness", **cli.context_settings)
    for name, command in cli.commands.items():
        with command.make_context(name, [], group, resilient_parsing=True) as context:
            for param in command.params:
                if isinstance(param, click.Option) and (record := param.get_help_record(context)):
                    rows.setdefault(record, []).append(name)
    lines = [
        f"- `{label}` ({_listed(names)}): {text.replace('  [', ' [')}"
        for (label, text), names in sorted(rows.items(), key=lambda row: row[0][0].lstrip("-"))
        if "--help" not in label
    ]
    before, start, rest = PAGE.read_text(encoding="utf-8").partition("<!-- options -->\n")
    return before + start + "\n".join(lines) + "\n" + rest[rest.index("<!-- end -->") :]


def _listed(names: list[str]) -> str:
    """Return the names of commands as text, or of the few commands that are missing."""
    others = [name for name in cli.commands if name not in names]
    return f"all commands except {', '.join(others)}" if len(others) < 4 else ", ".join(names)


if __name__ == "__main__":
    KEYWORDS.write_text(keywords(), encoding="utf-8")
    STUB.write_text(stub(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
