"""What equations mean, as data: each name comes to what it is computed of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from harness.language import schema
from harness.language.axis_arguments import TRUTHS
from harness.language.builtins import BUILTINS
from harness.language.expressions import (
    Assignment,
    Binary,
    Call,
    Compare,
    Expr,
    Index,
    IndexItem,
    Invert,
    Item,
    List,
    Name,
    Negate,
    Number,
    Rest,
    SliceItem,
    parse_equations,
)
from harness.language.library import Definition, Library, content
from harness.language.meaning_axes import Axes, Names, sum_of


class EquationReader(ABC):
    """Reads equations for what each name comes to."""

    def __init__(self, library: Library) -> None:
        self.library = library

    @abstractmethod
    def checksum(self, kind: str, name: str) -> str:
        """The meaning of a definition."""

    def run(self, equations: Iterable[Assignment], given: Names) -> Names:
        """What all names come to, those that are given too."""
        names = dict(given)
        for equation in equations:
            value = self.of(equation.value, names)
            for number, target in enumerate(equation.targets):
                names[target.id] = sum_of("result", number, value) if number else value
        return names

    def of(self, expr: Expr, names: Names) -> str:
        """What an expression comes to, of what its names do."""
        match expr:
            case Number(value):
                return sum_of("number", float(value))
            case Negate(Number(value)):
                return sum_of("number", -float(value))
            case Negate(operand) | Invert(operand):
                return sum_of("-" if isinstance(expr, Negate) else "~", self.of(operand, names))
            case Name(name):
                return names[name] if name in names else self._literal(TRUTHS.get(name, name))
            case Binary(operator, left, right):
                return sum_of(operator, self.of(left, names), self.of(right, names))
            case Compare(operator, left, right):
                if operator in (">", ">="):
                    operator, left, right = operator.replace(">", "<"), right, left
                return sum_of(operator, self.of(left, names), self.of(right, names))
            case Index(inner, items):
                told = [self._item(item, names) for item in items]
                return sum_of("index", self.of(inner, names), told)
            case List(items):
                return sum_of("list", *(self.of(item, names) for item in items))
            case Rest():
                return sum_of("...")
            case Call():
                return self._call(expr, names)

    def _item(self, item: Item, names: Names) -> Any:
        if isinstance(item, IndexItem) and not isinstance(item.value, int):
            return "at", self.of(item.value, names)
        if not isinstance(item, SliceItem):
            return item
        ends = [None if end is None else self.of(end, names) for end in (item.start, item.stop)]
        return ends, item.step

    def _call(self, expr: Call, names: Names) -> str:
        arguments = [self.of(argument, names) for argument in expr.arguments]
        if expr.function in names or expr.function in BUILTINS:
            function = names.get(expr.function, expr.function)
            keywords = sorted((name, self.of(value, names)) for name, value in expr.keywords)
            return sum_of("call", function, *arguments, keywords)
        definition = self.library.find("function", expr.function)
        inputs = content(definition, schema.Function).inputs
        named = {name: self.of(value, names) for name, value in expr.keywords}
        return self.function(definition, dict(zip(inputs, arguments, strict=False)) | named)

    def _literal(self, value: bool | float | str) -> str:
        """An attribute's value, as equations would have it."""
        if isinstance(value, bool):
            return sum_of("truth", value)
        if isinstance(value, float | int):
            return sum_of("number", float(value))
        if self.library.has("function", value):
            return self.checksum("function", value)
        return sum_of("word", value)

    def function(self, definition: Definition, arguments: Names) -> str:
        """A function of these arguments; attributes that are not among them are at their defaults,
        which so are part of what it means."""
        spec, locate = content(definition, schema.Function), definition.document.locator
        axes = Axes(spec.attributes)
        inputs = axes.inputs(spec.inputs)
        equations = parse_equations(spec.equations, locate(("equations",)))
        defaults = {name: self._literal(value) for name, value in spec.attributes.items()}
        names = self.run(equations, axes.names() | defaults | arguments)
        # What '...' stands for, in axis=..., is said by the shapes that the inputs declare.
        shapes = [shape for _, shape in inputs]
        return sum_of("function", shapes, names[spec.output])
