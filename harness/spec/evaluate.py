"""From expressions to nodes: names are looked up, shapes inferred, functions written out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness.builder import Builder
from harness.dims import Dim, shape_text
from harness.errors import Place, SpecError, did_you_mean
from harness.primitives import TypeMismatch
from harness.program import Type
from harness.spec import schema
from harness.spec.builtins import BUILTINS
from harness.spec.expressions import (
    Assignment,
    Binary,
    Call,
    Compare,
    Expr,
    Index,
    IndexItem,
    Item,
    List,
    Name,
    Negate,
    Number,
    Rest,
    SliceItem,
    parse_equations,
)
from harness.spec.library import Definition, Library, content
from harness.spec.shapes import match

OPERATORS: Mapping[str, str] = {
    "+": "add",
    "-": "subtract",
    "*": "multiply",
    "/": "divide",
    "**": "power",
    "@": "matmul",
}
COMPARISONS: Mapping[str, tuple[str, bool]] = {
    "<": ("less", False),
    "<=": ("less_equal", False),
    ">": ("less", True),
    ">=": ("less_equal", True),
    "==": ("equal", False),
}


@dataclass(frozen=True)
class Tensor:
    """A name bound to a value of the program."""

    value: int


@dataclass(frozen=True)
class FunctionName:
    """An attribute such as ``activation``, bound to a function's name."""

    function: str


# What a name can stand for. A float is an attribute, a Dim a size.
Binding = Tensor | FunctionName | float | Dim


@dataclass
class Scope:
    """The names of one body of equations, which of them were used, and what ``...`` stands for."""

    names: dict[str, Binding]
    rest: list[Dim] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def look_up(self, name: Name) -> Binding:
        """The binding; :class:`SpecError` for a name that was never defined."""
        if name.id not in self.names:
            known = sorted(self.names)
            raise SpecError(
                f"unknown name {name.id!r}{did_you_mean(name.id, known)} "
                f"(known here: {', '.join(known)})",
                name.place,
            )
        self.used.add(name.id)
        return self.names[name.id]


class Evaluator:
    """Evaluates the equations of functions; subclasses add what else may be called."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.builder = Builder()
        self.places: dict[int, Place] = {}  # where a value was made, for messages
        self._inside: list[str] = []  # the functions being written out, to find cycles

    @contextmanager
    def at(self, place: Place) -> Iterator[None]:
        """Give the place of an equation to the nodes made inside, and to their errors."""
        before = self.builder.place
        self.builder.place = f"{place.file}:{place.line}"
        try:
            yield
        except TypeMismatch as mismatch:
            raise SpecError(str(mismatch), place) from None
        finally:
            self.builder.place = before

    def type_of(self, value: int) -> Type:
        """A value's type."""
        return self.builder.types[value]

    def tell(self, value: int) -> str:
        """A value's name, type and origin, for messages."""
        name = self.builder.names.get(value, "the value")
        place = self.places.get(value)
        return f"{name} {self.type_of(value)}" + (f" (from {place})" if place else "")

    def run(self, equations: Sequence[Assignment], scope: Scope, label: str | None) -> None:
        """Evaluate assignments in order, adding their names to the scope.

        Values are named ``label + name``; those inside functions (None) stay nameless.
        """
        for assignment in equations:
            values = self.assigned(assignment, scope)
            for target, value in zip(assignment.targets, values, strict=True):
                scope.names[target.id] = Tensor(value)
                if label is not None:
                    self.builder.names.setdefault(value, f"{label}{target.id}")
                self.places.setdefault(value, target.place)

    def assigned(self, assignment: Assignment, scope: Scope) -> Sequence[int]:
        """The values of an assignment's targets."""
        if len(assignment.targets) > 1:
            raise SpecError("only a call of a layer has several results", assignment.place)
        return [self.tensor(assignment.value, scope)]

    def tensor(self, expr: Expr, scope: Scope) -> int:
        """The value of an expression."""
        with self.at(expr.place):
            value = self._tensor(expr, scope)
        self.places.setdefault(value, expr.place)
        return value

    def _tensor(self, expr: Expr, scope: Scope) -> int:
        match expr:
            case Number(value):
                return self.builder.constant(value)
            case Negate(Number(value)):
                return self.builder.constant(-value)
            case Negate(operand):
                return self.builder.emit("negative", self.tensor(operand, scope))
            case Name():
                return self._named(expr, scope)
            case Binary(operator, left, right):
                a, b = self.tensor(left, scope), self.tensor(right, scope)
                return self._joined(OPERATORS[operator], a, b, expr.place)
            case Compare(operator, left, right):
                return self._compared(expr, operator, left, right, scope)
            case Index(inner, items):
                return self._indexed(self.tensor(inner, scope), items, expr.place)
            case Call():
                return self.call(expr, scope)
            case List() | Rest():
                raise SpecError("a list or '...' is no value by itself", expr.place)

    def _named(self, name: Name, scope: Scope) -> int:
        match scope.look_up(name):
            case Tensor(value):
                return value
            case float() as number:
                return self.builder.constant(number)
            case Dim() as dim:
                return self.builder.emit("extent", dims=(dim,))
            case FunctionName(function):
                raise SpecError(
                    f"{name.id!r} is the function {function!r}: call it, as in {name.id}(x)",
                    name.place,
                )

    def _joined(self, op: str, a: int, b: int, place: Place) -> int:
        try:
            return self.builder.emit(op, a, b)
        except TypeMismatch as mismatch:
            raise SpecError(f"{mismatch}: {self.tell(a)} and {self.tell(b)}", place) from None

    def _compared(self, expr: Expr, operator: str, left: Expr, right: Expr, scope: Scope) -> int:
        if operator not in COMPARISONS:
            raise SpecError(
                f"'{operator}' is not a primitive (allowed: {' '.join(COMPARISONS)})", expr.place
            )
        op, swapped = COMPARISONS[operator]
        a, b = self.tensor(left, scope), self.tensor(right, scope)
        return self._joined(op, b, a, expr.place) if swapped else self._joined(op, a, b, expr.place)

    def _indexed(self, value: int, items: Sequence[Item], place: Place) -> int:
        rank = len(self.type_of(value).shape)
        given = sum(not isinstance(item, Rest) for item in items)
        if given > rank or sum(isinstance(item, Rest) for item in items) > 1:
            raise SpecError(f"{len(items)} indices for {self.tell(value)}", place)
        axis = 0
        for item in items:
            if isinstance(item, Rest):
                axis += rank - given
            elif isinstance(item, IndexItem):
                value = self._picked(value, axis, item)
            else:
                value = self._sliced(value, axis, item)
                axis += 1
        return value

    def _picked(self, value: int, axis: int, item: IndexItem) -> int:
        length = self.type_of(value).shape[axis]
        start = Dim(item.value) if item.value >= 0 else length + item.value
        if not length.terms and not 0 <= start.constant < length.constant:
            raise SpecError(f"index {item.value} is outside {self.tell(value)}", item.place)
        part = self.builder.slice_axis(value, axis, start, start + 1)
        return self.builder.emit("squeeze", part, axis=axis)

    def _sliced(self, value: int, axis: int, item: SliceItem) -> int:
        length = self.type_of(value).shape[axis]
        if item.step not in (None, 1, -1):
            raise SpecError(f"a slice's step is 1 or -1, found {item.step}", item.place)
        if item.step == -1:
            if item.start is not None or item.stop is not None:
                raise SpecError("'::-1' reverses a whole axis: leave start and stop out", item.place)
            return self.builder.emit("flip", value, axis=axis)
        start = Dim(item.start or 0) if (item.start or 0) >= 0 else length + (item.start or 0)
        stop = length if item.stop is None else Dim(item.stop)
        if item.stop is not None and item.stop < 0:
            stop = length + item.stop
        if not (stop - start).terms and (stop - start).constant < 1:
            raise SpecError(f"this slice of {shape_text([length])} is empty", item.place)
        return self.builder.slice_axis(value, axis, start, stop)

    def call(self, expr: Call, scope: Scope) -> int:
        """The value of a call: an attribute's function, a built-in, or a defined function."""
        bound = scope.names.get(expr.function)
        if isinstance(bound, FunctionName):
            scope.used.add(expr.function)
            if bound.function in BUILTINS:
                return BUILTINS[bound.function](self, expr, scope)
            return self.function(bound.function, expr, scope)
        if bound is not None:
            raise SpecError(f"{expr.function!r} is a value, not a function", expr.place)
        if expr.function in BUILTINS:
            return BUILTINS[expr.function](self, expr, scope)
        return self.function(expr.function, expr, scope)

    def callable_names(self, scope: Scope) -> tuple[str, ...]:
        """What may be called in a scope, for messages."""
        attributes = [n for n, b in scope.names.items() if isinstance(b, FunctionName)]
        return tuple(sorted([*BUILTINS, *self.library.names("function"), *attributes]))

    def function(self, name: str, expr: Call, scope: Scope) -> int:
        """Write out a defined function."""
        if not self.library.has("function", name):
            known = self.callable_names(scope)
            raise SpecError(
                f"unknown function {name!r}{did_you_mean(name, known)} (known: {', '.join(known)})",
                expr.place,
            )
        arguments = self.positional(expr, scope)
        definition = self.library.find("function", name, expr.place)
        spec = content(definition, schema.Function)
        if len(arguments) != len(spec.inputs):
            raise SpecError(
                f"{name} takes {', '.join(spec.inputs)}; found {len(arguments)} arguments",
                expr.place,
            )
        inner = Scope({})
        sizes: dict[str, Dim] = {}
        for (given, axes), value in zip(spec.inputs.items(), arguments, strict=True):
            if axes != "any":
                fail = self.failure(value, expr.place)
                match(f"{name}: {given}", axes, self.type_of(value), sizes, inner.rest, fail)
            inner.names[given] = Tensor(value)
        if name in self._inside:
            cycle = " -> ".join([*self._inside, name])
            raise SpecError(f"cyclic definition: {cycle}", expr.place)
        self._inside.append(name)
        equations = parse_equations(spec.equations, definition.document.locator(("equations",)))
        self.run(equations, inner, None)
        self._inside.pop()
        result = self.result(inner, spec.output, definition.document.place_of(("output",)))
        check_used(inner, spec.inputs, definition, "inputs", "input")
        check_read(equations, inner, ())
        return result

    def result(self, scope: Scope, name: str, place: Place) -> int:
        """The value of a definition's output name."""
        bound = scope.look_up(Name(name, place=place))
        if not isinstance(bound, Tensor):
            raise SpecError(f"output {name!r} is not a value of the equations", place)
        return bound.value

    def positional(self, expr: Call, scope: Scope) -> list[int]:
        """The values of a call that takes no keywords."""
        if expr.keywords:
            keyword = expr.keywords[0]
            raise SpecError(
                f"{expr.function} takes no keyword arguments, found {keyword[0]!r}", keyword[1].place
            )
        return [self.tensor(argument, scope) for argument in expr.arguments]


    def failure(self, value: int, place: Place) -> Callable[[str], SpecError]:
        """Makes errors about a value handed to a call at ``place``."""
        return lambda message: SpecError(f"{message}: {self.tell(value)}", place)


def check_used(
    scope: Scope, names: Iterable[str], definition: Definition, section: str, kind: str
) -> None:
    """What is declared must be used, or changing it would silently change nothing."""
    for name in names:
        if name not in scope.used:
            place = definition.document.place_of_key((section, name))
            raise SpecError(f"{kind} {name!r} is declared but never used", place)


def check_read(equations: Sequence[Assignment], scope: Scope, kept: Iterable[str]) -> None:
    """What an equation computes must be read by another, or be an output."""
    for assignment in equations:
        for target in assignment.targets:
            if target.id not in scope.used and target.id not in kept:
                raise SpecError(f"{target.id!r} is computed but never used", target.place)
