"""Attributes of layers, losses and optimizers, e.g. ``units``: their defaults and the values set in
a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import ErrorList, Place, SpecError, did_you_mean, known_names, shorten
from harness.language.axes import read_dim, size_of
from harness.language.axis_attributes import is_required, read_axis_values
from harness.language.axis_functions import TRUTHS
from harness.language.builtins import BUILTINS
from harness.language.document import Document, Locator
from harness.language.expressions import parse_expression
from harness.language.hints import Hints
from harness.language.library import Library
from harness.language.names import is_name
from harness.language.scope import (
    AxisValues,
    FunctionName,
    LanguageValues,
    Scope,
    is_whole_number,
    select_sizes,
)
from harness.language.tree import Call, Expr, Name, Negate, Number
from harness.program.dims import Dim


def attribute_hint(hints: Hints, name: str, declared: Collection[str], value: object) -> str:
    """Return a hint for the unknown attribute ``name``, e.g. ``; here it is 'units'``. If there is
    no hint, return "". ``declared`` has the known attributes, and ``value`` the value that the user
    set."""
    rest = hints.complements.get(name)
    if rest in declared and isinstance(value, int | float) and 0 <= value <= 1:
        return f"; write {rest}: {1 - value:g} ({rest} is 1 - {name})"
    if hints.renamed_attributes.get(name) in declared:
        return f"; here it is {hints.renamed_attributes[name]!r}"
    hint = hints.attributes.get(name) or hints.attributes_of_others.get(name)
    return f"; {hint}" if hint else did_you_mean(name, declared)


Attribute = FunctionName | bool | float | Dim | AxisValues
# The default of an attribute; a list has an entry for each axis.
Default = bool | float | str | list[Any]
# A function of (attribute, is_key). It returns the position of the attribute's key or of its value.
PlaceOf = Callable[[str, bool], Place]


@dataclass(frozen=True)
class AttributeSettings:
    """The attributes that a model sets for ``owner`` (e.g. a layer), with their positions in the
    file.

    ``place`` is the position of the owner; ``place_of(name, key)`` returns the position of an
    attribute. ``definition`` declares the attributes and their defaults. If the owner is nested in
    a layer, ``outer`` has the attributes of the outer layer, whose names may occur as values.
    """

    owner: str
    values: Mapping[str, object]
    place: Place
    definition: Document
    place_of: PlaceOf | None = None
    outer: Mapping[str, Attribute] = field(default_factory=dict)

    def at(self, name: str, *, key: bool = False) -> Place:
        """Return the position of an attribute's value in the model's file. With ``key``, return the
        position of the attribute's name. If the model does not set the attribute, return the
        position of the owner."""
        if self.place_of is None or name not in self.values:
            return self.place
        return self.place_of(name, key)


def read_attributes(
    library: Library,
    declared: Mapping[str, Default],
    settings: AttributeSettings,
    sizes: Mapping[str, Dim],
) -> dict[str, Attribute]:
    """Return a dictionary with the values of all ``declared`` attributes: the values that the model
    sets, and defaults for the others.

    Raises:
        SpecError: an attribute is unknown, or its value has the wrong kind.
    """
    errors = ErrorList()
    values: dict[str, Attribute] = {}
    unknown = [name for name in settings.values if name not in declared]
    for name in unknown:
        message = (
            f"unknown attribute {shorten(name)!r} of {settings.owner}"
            f"{attribute_hint(library.hints, name, declared, settings.values[name])} "
            f"(known: {', '.join(declared) or 'none'})"
        )
        errors.found.append(SpecError(message, settings.at(name, key=True)))
    for name, default in declared.items():
        # A required attribute may be missing because its name is misspelled.
        if name in settings.values or not unknown:
            with errors.part():
                values[name] = _read_attribute(library, name, default, settings, sizes)
    errors.end()
    return values


def _read_attribute(
    library: Library,
    name: str,
    default: Default,
    settings: AttributeSettings,
    sizes: Mapping[str, Dim],
) -> Attribute:
    value, at = settings.values.get(name, default), settings.at(name)
    outer_value = (
        settings.outer.get(value) if name in settings.values and isinstance(value, str) else None
    )
    lengths = {**select_sizes(settings.outer), **sizes}
    if isinstance(default, list):
        if isinstance(outer_value, tuple | str):
            return outer_value
        if name not in settings.values and is_required(default):
            raise SpecError(f"attribute {name!r} of {settings.owner} is missing: give a size", at)
        return read_axis_values(name, default, value, lengths, at)
    if default == "size":
        if name not in settings.values:
            raise SpecError(f"attribute {name!r} of {settings.owner} is missing: give a size", at)
        return value if isinstance(value, Dim) else read_dim(value, lengths, at)
    if isinstance(default, bool):
        value = outer_value if isinstance(outer_value, bool) else value
        if not isinstance(value, bool):
            raise SpecError(
                f"attribute {name!r} must be true or false, found {_value_text(value)}", at
            )
        return value
    if isinstance(default, str):
        if isinstance(outer_value, FunctionName):
            return outer_value
        if isinstance(value, FunctionName):
            return value
        function_names = sorted([*BUILTINS, *library.names("function")])
        if not isinstance(value, str):
            raise SpecError(
                f"attribute {name!r} must name a function, found {_value_text(value)}", at
            )
        if value not in function_names:
            if name not in settings.values:
                at = settings.definition.place_of(("attributes", name))
            raise SpecError(_unknown_function_text(library.hints, name, value, function_names), at)
        return FunctionName(value)
    if isinstance(outer_value, float):
        return outer_value
    return _read_numeric(name, value, lengths, at)


def _read_numeric(name: str, value: Any, sizes: Mapping[str, Dim], at: Place) -> float | Dim:
    """Return the value of a numeric attribute as a number, or as a dimension if it names sizes."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, Dim):
        return value if value.terms else float(value.constant)
    message = f"attribute {name!r} must be a number, found {_value_text(value)}"
    if not isinstance(value, str) or not sizes:
        raise SpecError(message, at)
    try:
        dim = size_of(parse_expression(value, Locator(at)), sizes)
    except SpecError:
        hint = did_you_mean(value, sizes)
        message = message.replace("a number", "a number, or a sum or product of sizes")
        raise SpecError(f"{message}{hint} (sizes here: {', '.join(sorted(sizes))})", at) from None
    return dim if dim.terms else float(dim.constant)


def _unknown_function_text(
    hints: Hints, name: str, value: str, function_names: Collection[str]
) -> str:
    name_text = shorten(value)
    if not is_name(value):
        return (
            f"attribute {name!r} must be 'size', a number, true or false, or the name of a "
            f"function, found {name_text!r}"
        )
    hint = did_you_mean(value, function_names)
    if value in hints.functions:
        hint = f"; {hints.functions[value]}"
        if hint.startswith("; write "):
            hint += f" in a function of your own, functions/{value}.yaml in a folder of --specs"
    if value.lower() in ("none", "identity"):
        hint = "; the identity function is 'linear'"
    names_text = known_names(function_names, hint, "harness list --functions")
    return f"attribute {name!r} must name a function, found {name_text!r}{hint}{names_text}"


def read_number(
    argument: str,
    value: float | str,
    attributes: Mapping[str, Attribute],
    used: set[str],
    place: Place,
) -> float:
    """Return an argument of a distribution as a number. ``value`` is a number, or the name of an
    attribute, which is then added to ``used``. ``argument`` names the argument in messages.

    Raises:
        SpecError: the value is not a finite number, nor the name of an attribute with a number.
    """
    if isinstance(value, str):
        number = attributes.get(value)
        if not isinstance(number, float):
            numbers = [n for n, a in attributes.items() if isinstance(a, float)]
            size = f", a size ({number})" if isinstance(number, Dim) else ""
            raise SpecError(
                f"{argument} must be a number or a numeric attribute, found {shorten(value)!r}"
                f"{size}{did_you_mean(value, numbers)} (known: {', '.join(numbers) or 'none'})",
                place,
            )
        used.add(value)
        value = number
    if not math.isfinite(value):
        raise SpecError(f"{argument} must be a finite number, found {value}", place)
    return float(value)


def _value_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return shorten(repr(value))


def as_plain_data(attributes: Mapping[str, Attribute]) -> dict[str, Any]:
    """Return attributes as a dictionary for the nodes of a program. If the value is a function, it
    becomes the function's name; other values stay the same."""
    return {n: a.function if isinstance(a, FunctionName) else a for n, a in attributes.items()}


# Arguments of calls. Inputs are passed by position or by name, and attributes by name.

Declared = Mapping[str, bool | float | str]


def evaluate_inputs(
    evaluator: LanguageValues,
    expr: Call,
    scope: Scope,
    inputs: Sequence[str],
    optional: Sequence[str] = (),
    attributes: Sequence[str] = (),
) -> dict[str, int]:
    """Evaluate the inputs of a call. Return a dictionary from input name to value number.

    Inputs are passed by position or by name. Initial states (``optional``) are passed by name.
    Keywords in ``attributes`` are ignored.

    Raises:
        SpecError: an argument is missing, unknown or given twice.
    """
    if len(expr.arguments) > len(inputs):
        count = len(expr.arguments)
        hint_by_name = f"; pass {attributes[0]} by name, {attributes[0]}=..." if attributes else ""
        raise SpecError(
            f"{expr.function} takes {', '.join(inputs) or 'no arguments'}; found {count} "
            f"argument{'s' * (count > 1)}{hint_by_name}",
            expr.place,
        )
    values = {n: evaluator.tensor(a, scope) for n, a in zip(inputs, expr.arguments, strict=False)}
    names = [*inputs, *optional, *attributes]
    for name, argument in expr.keywords:
        if name in attributes:
            continue
        if name not in names or name in values:
            problem = "is given twice" if name in values else "is unknown"
            hint = "" if name in values else did_you_mean(name, names)
            raise SpecError(
                f"{expr.function}: argument {name!r} {problem}{hint} (known: {', '.join(names)})",
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


def evaluate_attributes(
    library: Library, owner: str, expr: Call, declared: Declared, document: Document, scope: Scope
) -> dict[str, Attribute]:
    """Return a dictionary with the attributes of a call: the values of the call's keywords, and
    defaults for all other attributes. ``declared`` has the attributes that the called definition
    ``owner`` declares.

    Raises:
        SpecError: an attribute is missing, or its value has the wrong kind.
    """
    keywords = {
        n: (e, _evaluate_keyword(n, declared[n], e, scope))
        for n, e in expr.keywords
        if n in declared
    }

    def place_of(name: str, _key: bool) -> Place:
        return keywords[name][0].place

    values = {name: value for name, (_, value) in keywords.items()}
    settings = AttributeSettings(owner, values, expr.place, document, place_of)
    return read_attributes(library, declared, settings, {})


def _evaluate_keyword(name: str, default: bool | float | str, value: Expr, scope: Scope) -> Any:
    """Return the value of the keyword ``name``: a dimension if the attribute is a size, otherwise a
    number, a boolean or a function. ``default`` is the attribute's default, which shows which of
    these the attribute is."""
    if default == "size":
        return scope.size(value)
    match value:
        case Number(is_number):
            return is_number
        case Negate(Number(is_number)):
            return -is_number
        case Name(word):
            bound = scope.names.get(word)
            if isinstance(bound, FunctionName | bool | float):
                scope.used.add(word)
                return bound
            if bound is None:
                return TRUTHS.get(word, word)
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    if is_number and is_whole_number(value, scope):
        return scope.size(value)
    expected = "the name of a function" if isinstance(default, str) else "a number"
    expected = "true or false" if isinstance(default, bool) else expected
    if isinstance(value, Name) and isinstance(scope.names.get(value.id), Dim):
        expected += f"; {value.id!r} is a size"
    raise SpecError(f"attribute {name!r} must be {expected}", value.place)
