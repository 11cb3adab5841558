"""Write what is made of the options of commands: ``python docs/options.py``.

These are the table of all options in docs/command-line.md and the types in harness/api/keywords.py.
``tests/project/test_options_page.py`` tells when they are not as the options are declared.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.api.signature import annotation, arguments_of
from harness.checking.options import CellOptions, CheckOptions
from harness.given.options import PassOptions
from harness.timing.options import BenchOptions
from harness.training.generate.request import GenerateOptions
from harness.training.options import TrainOptions

ROOT = Path(__file__).parent.parent
KEYWORDS = ROOT / "harness/api/keywords.py"
# The options of each function, and of which other one it has them all.
FUNCTIONS: dict[str, tuple[type, str]] = {
    "Cell": (CellOptions, ""),
    "Check": (CheckOptions, "Cell"),
    "Bench": (BenchOptions, ""),
    "Run": (PassOptions, ""),
    "Train": (TrainOptions, ""),
    "Generate": (GenerateOptions, ""),
}
# What functions take by its place, or as arguments of their own.
FIRST = {"specs", "backends", "spec", "backend", "prompt"}
HEAD = '''"""The types of what functions take by name, for editors and type checkers.

Written by docs/options.py from the options of commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from harness.api.arguments import Folders, Names, Numbers
    from harness.oracle.given import Numbers as Arrays
    from harness.oracle.given import Source
    from harness.program.ir import Phase
'''


def keywords() -> str:
    """Return the text of harness/api/keywords.py."""
    return HEAD + "".join(map("\n\n{}\n".format, _classes()))


def _classes() -> Iterator[str]:
    for name, (declared, base) in FUNCTIONS.items():
        before = {one.name for one in arguments_of(FUNCTIONS[base][0])} if base else FIRST
        if name == "Generate":
            before = {*before, "weights"}  # it needs them
        parent = f"{base}Keywords" if base else "TypedDict"
        rows = [
            f"    {one.name}: {annotation(one)}"
            for one in arguments_of(declared)
            if one.name not in before
        ]
        yield "\n".join((f"class {name}Keywords({parent}, total=False):", *rows))


if __name__ == "__main__":
    KEYWORDS.write_text(keywords(), encoding="utf-8")
