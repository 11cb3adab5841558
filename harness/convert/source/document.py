"""Docstrings, comments and constants of a generated source file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.convert.source.emitter import INDENT, LINE
from harness.convert.source.layers import SourceModel
from harness.convert.source.literals import name_text, prose, text, text_lines
from harness.language.axis_attributes import common_value
from harness.program.dims import Dim, Shape
from harness.program.ir import Port, Program


def described(model: SourceModel, port: Port) -> str:
    """Describe an input or state, e.g. ``chars: integers [batch, time] from 0 to 85``."""
    type_ = model.program.type_of(port)
    shape = model.dims(type_.shape)
    if type_.bound is None:
        return f"{name_text(port.name)}: {'booleans ' if type_.kind == 'bool' else ''}{shape}"
    (last,) = model.dims((type_.bound - 1,)).strip("[]").split(", ")
    return f"{name_text(port.name)}: integers {shape} from 0 to {last}"


def results(model: SourceModel) -> list[str]:
    """Describe every output, e.g. ``logits: [batch, time, 86]``."""
    types = model.types
    return [f"{name_text(n)}: {model.dims(types[v].shape)}" for n, v in model.outputs.items()]


def signature(model: SourceModel) -> list[str]:
    """Return lines with the shapes of a model's inputs, outputs and state."""
    inputs = [described(model, port) for port in model.program.inputs]
    lines = ["Takes", "", *(f"- {line}" for line in inputs)] if inputs else []
    lines += ["", "and returns", "", *(f"- {line}" for line in results(model))]
    if model.state:
        lines += ["", "and the state after it, to hand to the next call."]
    return lines


def form_title(program: Program, definition: str, attributes: Mapping[str, Any]) -> str:
    """Return the first line of the docstring of a layer's class: its name and its attributes, e.g.
    ``Layer conv2d: kernel [3, 1], padding 1, activation relu.``"""
    items = attributes.items()
    parts = [f"{name_text(n)} {_value(program, v)}" for n, v in items if not isinstance(v, Dim)]
    return f"Layer {name_text(definition)}{': ' if parts else ''}{', '.join(parts)}."


def _value(program: Program, value: Any) -> str:
    """Return the value of an attribute as in the spec: one number if all axes have the same."""
    value = common_value(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_value(program, item) for item in value)}]"
    if isinstance(value, Dim):
        return str(value.substitute({name: Dim(size) for name, size in program.sizes.items()}))
    return name_text(str(value).removesuffix(".0"))


def shapes(program: Program, named_shapes: Sequence[tuple[str, Shape]]) -> str:
    """Format names with shapes, e.g. ``x [batch, time, 86], h [batch, 256]``."""
    sizes = {name: Dim(size) for name, size in program.sizes.items()}
    texts = []
    for name, shape in named_shapes:
        inside = ", ".join(str(dim.substitute(sizes)) for dim in shape)
        texts.append(f"{name_text(name)} [{inside}]")
    return ", ".join(texts)


def arrow(
    program: Program, given: Sequence[tuple[str, Shape]], made: Sequence[tuple[str, Shape]]
) -> str:
    """Format the inputs ``given`` and the results ``made`` with their shapes, e.g. ``x [batch, 3]
    -> y [batch, 4]``.

    If there are no inputs, return only the results.
    """
    return " -> ".join(filter(None, (shapes(program, given), shapes(program, made))))


@dataclass(frozen=True)
class CallShapes:
    """The shapes of one call of a function: of its inputs and of its results, by name. ``sizes``
    has the sizes of the call, by their names in the definition of the layer."""

    inputs: Sequence[tuple[str, Shape]]
    results: Sequence[tuple[str, Shape]]
    sizes: Mapping[str, Dim]


def arrows(program: Program, calls: Sequence[CallShapes]) -> list[str]:
    """Return lines with the shapes of a function that is called with different shapes, e.g. ``x
    [batch, features] -> y [batch, units]``: one line for each combination of ranks."""
    by_rank: dict[Any, list[CallShapes]] = {}
    for call in calls:
        ranks = tuple((name, len(shape)) for name, shape in (*call.inputs, *call.results))
        by_rank.setdefault(ranks, []).append(call)
    return [_common_arrow(program, alike) for alike in by_rank.values()]


def _common_arrow(program: Program, calls: Sequence[CallShapes]) -> str:
    numbers = {name: Dim(size) for name, size in program.sizes.items()}
    known = [{n: d.substitute(numbers) for n, d in call.sizes.items()} for call in calls]
    letters: dict[tuple[Dim, ...], Dim] = {}
    others = (f"n{number}" for number in itertools.count(1))

    def common(shapes: Sequence[Shape]) -> Shape:
        dims = []
        for every in zip(*shapes, strict=True):
            lengths = tuple(dim.substitute(numbers) for dim in every)
            if len(set(lengths)) > 1 and lengths not in letters:
                fitting = [
                    name
                    for name in known[0]
                    if tuple(sizes.get(name) for sizes in known) == lengths
                ]
                letters[lengths] = Dim.of(fitting[0] if fitting else next(others))
            dims.append(letters.get(lengths, lengths[0]))
        return tuple(dims)

    def common_pairs(sides: Sequence[Sequence[tuple[str, Shape]]]) -> list[tuple[str, Shape]]:
        columns = zip(*sides, strict=True)
        return [(column[0][0], common([shape for _, shape in column])) for column in columns]

    inputs = common_pairs([call.inputs for call in calls])
    return arrow(program, inputs, common_pairs([call.results for call in calls]))


def names(every: Sequence[str]) -> str:
    """Return the source code of a tuple of names, e.g. ``("x", "h")``."""
    texts = [text(name) for name in every]
    return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"


def vocabulary(characters: Sequence[str]) -> list[str]:
    """Return the source lines of the constant ``VOCABULARY``, a string of all characters; an empty
    list if there are no characters."""
    if not characters:
        return []
    head = ["# The characters by index."]
    pieces = text_lines("".join(characters), LINE - len(INDENT))
    if len(pieces) == 1 and len(line := f"VOCABULARY = {pieces[0]}") <= LINE:
        return [*head, line, ""]
    return [*head, "VOCABULARY = (", *(f"{INDENT}{piece}" for piece in pieces), ")", ""]


def constants(model: SourceModel, function: str, characters: Sequence[str]) -> list[str]:
    """Return the source lines of a generated file's constants: the names of inputs and state, and
    the vocabulary. ``function`` is the name of the function that the comments mention."""
    return [
        f"# The arguments of {function} in order, and what is carried from call to call.",
        f"INPUTS = {names([port.name for port in model.program.inputs])}",
        f"STATE = {names(list(model.state))}",
        "",
        *vocabulary(characters),
    ]


def first_arguments(model: SourceModel) -> str:
    """Return the arguments of an example call of the model: its inputs. If there are more than
    three, the rest is ``...``."""
    inputs = [name_text(port.name) for port in model.program.inputs]
    return ", ".join([*inputs[:3], *(["..."] if len(inputs) > 3 else [])])


def docstring(lines: Sequence[str], indent: int = 0) -> list[str]:
    """Return the source lines of a docstring with the text ``lines``. Long lists of shapes are
    wrapped. ``indent`` is the number of indentation levels."""
    space = INDENT * indent
    result: list[str] = []
    for line in lines:
        # An indented line is an example. Do not wrap it.
        is_indented = line.startswith(" ")
        result += [prose(line)] if is_indented else _wrapped(prose(line), LINE - len(space) - 3)
    result[0] = f'"""{result[0]}'
    if len(lines) == 1:
        result[-1] += '"""'
    else:
        result.append('"""')
    return [f"{space}{line}" if line else "" for line in result]


def comment(line: str, indent: int = 0) -> str:
    """Return one line of a comment."""
    return f"{INDENT * indent}# {prose(line)}"


def _wrapped(line: str, width: int) -> list[str]:
    """Break a line of names with shapes into lines of at most ``width`` characters, e.g. ``x
    [batch, 3], h [batch, 4] -> y [batch, 4]``."""
    lines: list[str] = []
    for word in re.split(r"(?<=[,>]) (?![^\[]*\])", line):
        if lines and len(lines[-1]) + len(word) + 1 <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
