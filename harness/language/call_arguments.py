"""The arguments of calls: inputs by position or by name, attributes by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import Place, SpecError, did_you_mean
from harness.language.attributes import Attribute, GivenAttributes, read_attributes
from harness.language.axis_arguments import TRUTHS
from harness.language.document import Document
from harness.language.expressions import Call, Expr, Name, Negate, Number
from harness.language.library import Library
from harness.language.scope import FunctionName, Scope, is_whole
from harness.language.values import LanguageValues
from harness.program.dims import Dim

Declared = Mapping[str, bool | float | str]


def inputs_of(
    evaluator: LanguageValues,
    expr: Call,
    scope: Scope,
    inputs: Sequence[str],
    optional: Sequence[str] = (),
    attributes: Sequence[str] = (),
) -> dict[str, int]:
    """The values of a call's inputs: positional arguments first; keywords are inputs or initial
    states (``optional``). Those of ``attributes`` are left alone.

    Raises:
        SpecError: an argument is missing, unknown or given twice.
    """
    if len(expr.arguments) > len(inputs):
        count = len(expr.arguments)
        named = f"; give {attributes[0]} by its name, {attributes[0]}=..." if attributes else ""
        raise SpecError(
            f"{expr.function} takes {', '.join(inputs) or 'no arguments'}; found {count} "
            f"argument{'s' * (count > 1)}{named}",
            expr.place,
        )
    values = {n: evaluator.tensor(a, scope) for n, a in zip(inputs, expr.arguments, strict=False)}
    known = [*inputs, *optional, *attributes]
    for name, argument in expr.keywords:
        if name in attributes:
            continue
        if name not in known or name in values:
            problem = "is given twice" if name in values else "is unknown"
            hint = "" if name in values else did_you_mean(name, known)
            raise SpecError(
                f"{expr.function}: argument {name!r} {problem}{hint} (known: {', '.join(known)})",
                argument.place,
            )
        values[name] = evaluator.tensor(argument, scope)
    for name in inputs:
        if name not in values:
            raise SpecError(
                f"{expr.function}: argument {name!r} is missing (it takes {', '.join(inputs)})",
                expr.place,
            )
    return values


def attributes_of(
    library: Library, owner: str, expr: Call, declared: Declared, document: Document, scope: Scope
) -> dict[str, Attribute]:
    """The attributes of a call, from its keywords and the defaults of its definition.

    Raises:
        SpecError: one is missing, or not of its kind.
    """
    given = {
        n: (e, _attribute(n, declared[n], e, scope)) for n, e in expr.keywords if n in declared
    }

    def place_of(name: str, _key: bool) -> Place:
        return given[name][0].place

    values = {name: value for name, (_, value) in given.items()}
    named = GivenAttributes(owner, values, expr.place, document, place_of)
    return read_attributes(library, declared, named, {})


def _attribute(name: str, default: bool | float | str, value: Expr, scope: Scope) -> Any:
    """A keyword's value: of a size, a dimension; of the others what YAML would have, or what an
    attribute in scope stands for; of a number also a sum or product of sizes."""
    if default == "size":
        return scope.size(value)
    match value:
        case Number(number):
            return number
        case Negate(Number(number)):
            return -number
        case Name(word):
            bound = scope.names.get(word)
            if isinstance(bound, FunctionName | bool | float):
                scope.used.add(word)
                return bound
            if bound is None:
                return TRUTHS.get(word, word)
    number = isinstance(default, int | float) and not isinstance(default, bool)
    if number and is_whole(value, scope):
        return scope.size(value)
    what = "the name of a function" if isinstance(default, str) else "a number"
    what = "true or false" if isinstance(default, bool) else what
    if isinstance(value, Name) and isinstance(scope.names.get(value.id), Dim):
        what += f"; {value.id!r} is a size"
    raise SpecError(f"attribute {name!r} is {what}", value.place)
