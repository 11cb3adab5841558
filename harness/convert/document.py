"""The parts of a generated file that are prose or data: docstrings with shapes, the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.convert.layers import Form, Model
from harness.convert.names import text_lines
from harness.convert.wrapping import INDENT, LINE
from harness.dims import Dim, Shape
from harness.program import Port, Program


def described(model: Model, port: Port) -> str:
    """``chars: integers [batch, time] from 0 to 85``."""
    type_ = model.program.type_of(port)
    shape = model.dims(type_.shape)
    if type_.bound is None:
        return f"{port.name}: {shape}"
    return f"{port.name}: integers {shape} from 0 to {type_.bound.resolve(model.program.sizes) - 1}"


def results(model: Model) -> list[str]:
    """``logits: [batch, time, 86]`` for every output."""
    types = model.types
    return [f"{n}: {model.dims(types[v].shape)}" for n, v in model.outputs.items()]


def form_title(form: Form) -> str:
    """``Layer gru: activation relu, gate hard_sigmoid_fifth.``"""
    given = [f"{n} {v}" for n, v in form.attributes.items() if not isinstance(v, Dim)]
    return f"Layer {form.definition}{': ' if given else ''}{', '.join(given)}."


def shapes(program: Program, named: Sequence[tuple[str, Shape]]) -> str:
    """``x [batch, time, 86], h [batch, 256]``."""
    known = {name: Dim(size) for name, size in program.sizes.items()}
    texts = []
    for name, shape in named:
        inside = ", ".join(str(dim.substitute(known)) for dim in shape)
        texts.append(f"{name} [{inside}]")
    return ", ".join(texts)


def names(every: Sequence[str]) -> str:
    """A tuple of names."""
    texts = [f'"{name}"' for name in every]
    return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"


def vocabulary(characters: Sequence[str]) -> list[str]:
    """The lines of a constant with the characters by index; none without characters."""
    if not characters:
        return []
    head = ["# The characters by index."]
    pieces = text_lines("".join(characters), LINE - len(INDENT))
    if len(pieces) == 1 and len(line := f"VOCABULARY = {pieces[0]}") <= LINE:
        return [*head, line, ""]
    return [*head, "VOCABULARY = (", *(f"{INDENT}{piece}" for piece in pieces), ")", ""]


def wrapped(text: str, indent: int) -> list[str]:
    """Named shapes in lines that fit."""
    lines: list[str] = []
    for word in re.split(r"(?<=[,>]) (?![^\[]*\])", text):
        if lines and len(lines[-1]) + len(word) + 1 + indent * len(INDENT) <= LINE:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [f"{INDENT * indent}{line}" for line in lines]
