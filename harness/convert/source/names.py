"""Names of a spec as names of Python."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Collection, Iterable

# What Python's own words mean must not change in a file. ``_`` is for what nobody reads.
PYTHON = frozenset({*keyword.kwlist, *dir(builtins), "_"})
# What every file has beside its classes and functions.
CONSTANTS = frozenset({"INPUTS", "STATE", "VOCABULARY"})


def camel(name: str, reserved: Collection[str] = ()) -> str:
    """``lesson6/sequence_rnn`` as ``SequenceRnn``; ``TrueModel`` where Python has that already."""
    words = re.split(r"[^A-Za-z0-9]+|_", name.rpartition("/")[2])
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    joined = joined if joined[:1].isalpha() else f"Model{joined}"
    return unique(f"{joined}Model", reserved) if joined in {*PYTHON, *reserved} else joined


def identifier(name: str, reserved: Collection[str] = ()) -> str:
    """The name itself, or with ``_`` behind it where Python or ``reserved`` has it."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not plain.strip("_") or plain[0].isdigit():
        plain = f"v{plain}"
    return f"{plain}_" if keyword.iskeyword(plain) or plain in reserved else plain


def uses(lines: Iterable[str], module: str) -> bool:
    """Whether any line reads from a module, and not from a name that ends as the module's does."""
    return any(re.search(rf'(?<![\w."]){module}\.', line) for line in lines)


def unique(base: str, taken: Collection[str]) -> str:
    """``base``, or ``base_2``, ``base_3`` ... if that is taken."""
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name
