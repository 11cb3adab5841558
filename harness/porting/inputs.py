"""The option ``--input``, which declares an input of the model to port.

``ids=batch,time:86`` is an array ``[batch, time]`` of integers below 86, and ``x=batch,3,32,32`` an
array of floats. A name such as ``batch`` is a free size; a number is a fixed length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from keyword import iskeyword

import numpy as np

from harness.arrays import Array
from harness.errors import UsageError
from harness.porting.graph import ModelGraph

FORM = (
    "--input takes NAME=LENGTHS, such as x=batch,3,32,32, or ids=batch,time:86 (integers below 86)"
)
# The most entries of an input's fixed lengths, and the most free sizes of a model.
MOST_ENTRIES, MOST_SIZES = 1 << 27, 4


@dataclass(frozen=True)
class InputDeclaration:
    """A declared input. ``lengths`` has a name for each free size; ``below`` limits integers."""

    name: str
    lengths: tuple[int | str, ...]
    below: int | None = None

    @staticmethod
    def of(text: str) -> InputDeclaration:
        """Read ``NAME=LENGTHS[:BELOW]``; raise :class:`UsageError` for any other text."""
        name, equals, rest = (part.strip() for part in text.partition("="))
        lengths, colon, below = rest.partition(":")
        parts = [part.strip() for part in lengths.split(",")]
        valid = all(
            re.fullmatch(r"[1-9]\d{0,8}|[A-Za-z][A-Za-z0-9_]{0,59}", part) for part in parts
        )
        if (
            not equals
            or not name.isidentifier()
            or not valid
            or iskeyword(name)
            or any(map(iskeyword, parts))
            or (colon and not re.fullmatch(r"[1-9]\d{0,8}", below))
            or math.prod(int(p) for p in parts if p.isdigit()) > MOST_ENTRIES
        ):
            raise UsageError(f"{FORM}; found {text!r}")
        return InputDeclaration(
            name, tuple(int(p) if p.isdigit() else p for p in parts), int(below) if below else None
        )

    def array(self, sizes: Mapping[str, int]) -> Array:
        """Return random numbers with these sizes, the same in each call."""
        shape = [sizes[n] if isinstance(n, str) else n for n in self.lengths]
        rng = np.random.default_rng(0)
        if self.below is not None:
            return rng.integers(0, self.below, shape)
        return rng.standard_normal(shape)

    def __str__(self) -> str:
        lengths = ",".join(map(str, self.lengths))
        return f"{self.name}={lengths}" + ("" if self.below is None else f":{self.below}")

    def entry(self) -> str:
        """Return the declaration in the spec language."""
        shape = f"shape: [{', '.join(map(str, self.lengths))}]"
        return f"{{{shape}, index: {self.below}}}" if self.below is not None else f"{{{shape}}}"


def free_sizes(declarations: Sequence[InputDeclaration]) -> list[str]:
    """Return the names of the free sizes, each once.

    Raises:
        UsageError: there are more free sizes than lengths to trace with, or an input is repeated.
    """
    inputs = [d.name for d in declarations]
    if len({*inputs}) < len(inputs):
        raise UsageError(f"--input names an input twice: {', '.join(inputs)}")
    names = list(dict.fromkeys(n for d in declarations for n in d.lengths if isinstance(n, str)))
    if len(names) > MOST_SIZES:
        raise UsageError(f"--input allows {MOST_SIZES} free sizes, found {', '.join(names)}")
    return names


# Words in the error of a framework whose model got floats in place of integers.
INTEGERS = re.compile(r"\b(long|int\d*|integers?|ind(ices|ex(er|ing)?))\b", re.IGNORECASE)


def explain_failure(
    error: UsageError, declarations: Sequence[InputDeclaration], sizes: Mapping[str, int]
) -> UsageError:
    """Return the error of a model that does not run, with what to write for its inputs. ``sizes``
    has the length of each free size."""
    message = str(error)
    floats = [d for d in declarations if d.below is None]
    tried = {name: length for name, length in sizes.items() if name != "batch"}
    wide = next((d for d in declarations if tried.keys() & {*d.lengths}), None)
    if floats and INTEGERS.search(message):
        message += f"\nfor integers write their number, as in --input {floats[0]}:86"
    elif wide is not None:
        numbers = tuple(32 if n in tried else n for n in wide.lengths)
        listed = ", ".join(f"{name} {length}" for name, length in tried.items())
        message += (
            f"\nthe lengths were {listed}; if the model needs certain lengths, write numbers, "
            f"as in --input {replace(wide, lengths=numbers)}"
        )
    return UsageError(message)


def check_indices(graph: ModelGraph, declarations: Sequence[InputDeclaration]) -> None:
    """Raise :class:`UsageError` if the integers of an input exceed the rows of an embedding."""
    declared = {d.name: d for d in declarations}
    calls, problems = graph.by_name, []
    for call in graph.calls:
        if call.op != "layer" or call.attributes["layer"] != "embedding":
            continue
        source, rows = calls[call.inputs[0]], call.attributes["settings"]["rows"]
        while source.op in ("reshape", "permute", "slice", "select"):
            source = calls[source.sources[0]]
        declaration = (
            declared.get(str(source.attributes.get("name"))) if source.op == "input" else None
        )
        if declaration is not None and isinstance(rows, int) and (declaration.below or 0) > rows:
            place = f"{call.place}: " if call.place else ""
            problems.append(
                f"{place}the embedding has {rows} rows, found --input {declaration}: write "
                f"--input {replace(declaration, below=rows)}"
            )
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))
