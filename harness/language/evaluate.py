"""From expressions to nodes: names are looked up, shapes inferred, functions written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from harness.errors import Place, SpecError, SpecErrors
from harness.language import schema
from harness.language.builtins import BUILTINS
from harness.language.call_arguments import attributes_of, inputs_of
from harness.language.conditions import compared, condition, constant_condition, inverted, joined
from harness.language.declared_axes import match
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
    NewAxis,
    Number,
    Rest,
    SliceItem,
    parse_equations,
)
from harness.language.library import Definition, Library, content
from harness.language.ordering import SEVERAL
from harness.language.scope import BoundValue, FunctionName, Scope, check_read, check_used, is_whole
from harness.language.unknown_functions import unknown_function
from harness.language.values import LanguageValues
from harness.program.dims import Dim, shape_text

# Products by ``@``: of matrices, and of a vector with either.


def product_of(evaluator: LanguageValues, left: int, right: int, place: Place) -> int:
    """``left @ right``. A vector is a row on the left and a column on the right; the axis of one
    entry that this gives it is dropped from the product, as in the Python array API standard.

    Raises:
        SpecError: an operand is a single number, or the two do not fit.
    """
    types = [evaluator.type_of(value) for value in (left, right)]
    ranks = [len(type_.shape) for type_ in types]
    row, column = (rank == 1 for rank in ranks)
    if min(ranks) > 1 or any(type_.kind != "float" for type_ in types):
        return evaluator.emit("matmul", left, right, place=place)
    _check(evaluator, left, right, place)
    builder = evaluator.builder
    first = builder.emit("expand_dims", left, axis=0) if row else left
    second = builder.emit("expand_dims", right, axis=1) if column else right
    product = builder.emit("matmul", first, second)
    for added, axis in ((column, -1), (row, -1 if column else -2)):
        if added:
            rank = len(evaluator.type_of(product).shape)
            product = builder.emit("squeeze", product, axis=rank + axis)
    return product


def _check(evaluator: LanguageValues, left: int, right: int, place: Place) -> None:
    """:class:`SpecError` for a vector whose length is not that of the axis that it is summed with,
    or that meets a single number."""
    first, second = evaluator.type_of(left), evaluator.type_of(right)
    told = f"{evaluator.tell(left)} and {evaluator.tell(right)}"
    if not (first.shape and second.shape):
        raise SpecError(
            f"{first} @ {second}: @ sums over an axis, and a number has none; write *: {told}",
            place,
        )
    summed = first.shape[-1], second.shape[-2:][0]
    if summed[0] != summed[1]:
        raise SpecError(f"{first} @ {second}: {summed[0]} is not {summed[1]}: {told}", place)


# Indices and slices: ``x[:, -1]``, ``x[:, ::-1]``, ``x[..., :half]``, ``x[:, None]``.


def indexed(
    evaluator: LanguageValues, value: int, items: Sequence[Item], place: Place, scope: Scope
) -> int:
    """The part of a value that the items choose; a position drops its axis.

    Raises:
        SpecError: there are more items than axes, two ``...``, or one that does not fit.
    """
    rank = len(evaluator.type_of(value).shape)
    given = sum(not isinstance(item, Rest | NewAxis) for item in items)
    if given > rank:
        raise SpecError(f"{given} indices for {evaluator.tell(value)}", place)
    if sum(isinstance(item, Rest) for item in items) > 1:
        raise SpecError("only one '...' can stand in an index", place)
    axis = 0
    for item in items:
        if isinstance(item, Rest):
            axis += rank - given
        elif isinstance(item, NewAxis):
            value = evaluator.builder.emit("expand_dims", value, axis=axis)
            evaluator.places.setdefault(value, item.place)
            axis += 1
        elif isinstance(item, IndexItem):
            value = _picked(evaluator, value, axis, item, scope)
        else:
            value = _sliced(evaluator, value, axis, item, scope)
            axis += 1
    return value


def _picked(evaluator: LanguageValues, value: int, axis: int, item: IndexItem, scope: Scope) -> int:
    length = evaluator.type_of(value).shape[axis]
    start = _position(item, length, scope)
    if not (length.terms or start.terms) and not 0 <= start.constant < length.constant:
        told = item.value if isinstance(item.value, int) else start
        raise SpecError(
            f"index {told} is outside axis {axis} of {evaluator.tell(value)}", item.place
        )
    part = evaluator.builder.slice_axis(value, axis, start, start + 1)
    evaluator.places.setdefault(part, item.place)
    return evaluator.builder.emit("squeeze", part, axis=axis)


def _position(item: IndexItem, length: Dim, scope: Scope) -> Dim:
    given = item.value
    if isinstance(given, int):
        return Dim(given) if given >= 0 else length + given
    if not is_whole(given, scope):
        raise SpecError(
            "an index is a whole number, a size, a slice of them or '...'; take(x, i, axis=0) "
            "gives the rows that an index says, take_along_axis(x, i, axis=-1) one entry of each",
            item.place,
        )
    return _bound(given, length, Dim(), scope)


def _sliced(evaluator: LanguageValues, value: int, axis: int, item: SliceItem, scope: Scope) -> int:
    length = evaluator.type_of(value).shape[axis]
    step = 1 if item.step is None else item.step
    if step == -1:
        if item.start is not None or item.stop is not None:
            raise SpecError("'::-1' reverses a whole axis: leave start and stop out", item.place)
        return evaluator.builder.emit("flip", value, axis=axis)
    if step < 1:
        raise SpecError(f"a slice's step is -1, or 1 or more, found {step}", item.place)
    start = _bound(item.start, length, Dim(), scope)
    stop = _bound(item.stop, length, length, scope)
    if not (stop - start).terms and (stop - start).constant < 1:
        raise SpecError(f"this slice of {shape_text([length])} is empty", item.place)
    for bound in (start, stop):
        if not (length.terms or bound.terms) and not 0 <= bound.constant <= length.constant:
            raise SpecError(
                f"this slice goes beyond axis {axis} of {evaluator.tell(value)}", item.place
            )
    part = evaluator.builder.slice_axis(value, axis, start, stop)
    evaluator.places.setdefault(part, item.place)
    return part if step == 1 else _every(evaluator, part, axis, step, item.place)


def _every(evaluator: LanguageValues, value: int, axis: int, step: int, place: Place) -> int:
    """Every so many entries of an axis, from the first on: the first of each group of them."""
    shape = evaluator.type_of(value).shape
    length = shape[axis]
    if any(c % step for c in (length.constant, *(c for _, c in length.terms))):
        raise SpecError(
            f"a step of {step} goes over {length} entries, which is no multiple of it: say so in "
            f"the size, as in {step} * half, or cut the axis before",
            place,
        )
    count = Dim(length.constant // step, tuple((n, c // step) for n, c in length.terms))
    groups = (*shape[:axis], count, Dim(step), *shape[axis + 1 :])
    split = evaluator.builder.emit("reshape", value, shape=groups)
    first = evaluator.builder.slice_axis(split, axis + 1, 0, 1)
    result = evaluator.builder.emit("squeeze", first, axis=axis + 1)
    evaluator.places.setdefault(result, place)
    return result


def _bound(given: Expr | None, length: Dim, absent: Dim, scope: Scope) -> Dim:
    """Where a slice begins or ends; what has a minus sign counts from the end of the axis."""
    if given is None:
        return absent
    if isinstance(given, Negate):
        return length - scope.size(given.operand)
    return scope.size(given)


OPERATORS: Mapping[str, str] = {
    "+": "add",
    "-": "subtract",
    "*": "multiply",
    "/": "divide",
    "**": "power",
}
# Functions are written out where they are called, so a few short definitions can grow without end.
MAX_VALUES = 20_000
MAX_FUNCTIONS = 20
MAX_DEPTH = 120


class Evaluator(LanguageValues):
    """Evaluates the equations of functions; subclasses add what else may be called."""

    def __init__(self, library: Library) -> None:
        super().__init__()
        self.library = library
        self._inside: list[str] = []  # the functions being written out, to find cycles
        self._depth = 0

    @contextmanager
    def called(self, name: str, place: Place) -> Iterator[None]:
        """Add to the errors of a definition's own equations which call led to them.

        Raises:
            SpecError: that of the equations, with the call in its message.
        """
        try:
            yield
        except SpecError as error:
            if error.place is None or error.place.file == place.file:
                raise
            if isinstance(error, SpecErrors):
                raise
            raise SpecError(f"{error.message}; in {name} called at {place}", error.place) from None

    def run(self, equations: Sequence[Assignment], scope: Scope, label: str | None) -> None:
        """Evaluate assignments in order, adding their names to the scope.

        LanguageValues are named ``label + name``; those inside functions (None) stay nameless.

        Raises:
            SpecError: an equation is wrong, or assigns to a name that is taken.
        """
        for assignment in equations:
            values = self.assigned(assignment, scope)
            for target, value in zip(assignment.targets, values, strict=True):
                if target.id in BUILTINS:
                    raise SpecError(
                        f"{target.id!r} is taken: it is a function of the language; "
                        "choose another name",
                        target.place,
                    )
                scope.assign(target, value)
                if label is not None:
                    at = f"{target.place.file}:{target.place.line}"
                    self.builder.name(value, f"{label}{target.id}", at)
                self.places.setdefault(value, target.place)

    def assigned(self, assignment: Assignment, scope: Scope) -> Sequence[int]:
        """The values of an assignment's targets.

        Raises:
            SpecError: there are several targets.
        """
        expr, count = assignment.value, len(assignment.targets)
        if count > 1 and isinstance(expr, Call) and expr.function in SEVERAL:
            with self.at(expr.place):
                results = SEVERAL[expr.function](self, expr, scope)
            if count == len(results):
                return results
            raise SpecError(
                f"{expr.function} gives {len(results)} results; {count} names are assigned",
                assignment.place,
            )
        if count > 1:
            raise SpecError(
                f"only a call of a layer has several results, and {', '.join(SEVERAL)}: "
                "a tensor is taken apart by indices, as in a = x[0]",
                assignment.place,
            )
        return [self.tensor(assignment.value, scope)]

    def tensor(self, expr: Expr, scope: Scope) -> int:
        """The value of an expression.

        Raises:
            SpecError: it has none, or the equations are too deep or too many.
        """
        if self._depth >= MAX_DEPTH:
            raise SpecError(f"more than {MAX_DEPTH} levels of functions deep", expr.place)
        if len(self.builder.types) > MAX_VALUES:
            raise SpecError(f"the equations come to more than {MAX_VALUES:,} values", expr.place)
        self._depth += 1
        with self.at(expr.place):
            value = self._tensor(expr, scope)
        self._depth -= 1
        self.places.setdefault(value, expr.place)
        return value

    def _tensor(self, expr: Expr, scope: Scope) -> int:
        match expr:
            case Number(value):
                return self.builder.constant(value)
            case Negate(Number(value)):
                return self.builder.constant(-value)
            case Negate(operand):
                return self.emit("negative", self.tensor(operand, scope), place=expr.place)
            case Name():
                return self._named(expr, scope)
            case Invert(operand):
                return inverted(self, condition(self, "~", operand, scope), expr.place)
            case Binary("&" | "|" as operator, left, right):
                return joined(self, operator, left, right, scope, expr.place)
            case Binary("@", left, right):
                a, b = self.tensor(left, scope), self.tensor(right, scope)
                return self.product(a, b, expr.place)
            case Binary(operator, left, right):
                a, b = self.tensor(left, scope), self.tensor(right, scope)
                return self.emit(OPERATORS[operator], a, b, place=expr.place)
            case Compare(operator, left, right):
                return compared(self, expr, operator, left, right, scope)
            case Index(inner, items):
                return indexed(self, self.tensor(inner, scope), items, expr.place, scope)
            case Call():
                return self.call(expr, scope)
            case List() | Rest():
                raise SpecError("a list or '...' is not a value by itself", expr.place)

    def product(self, left: int, right: int, place: Place) -> int:
        """The value of ``left @ right``.

        Raises:
            SpecError: the two do not fit.
        """
        return product_of(self, left, right, place)

    def _named(self, name: Name, scope: Scope) -> int:
        if name.id not in scope.names and name.id in self.callable_names(scope):
            raise SpecError(f"{name.id!r} is a function: call it, as in {name.id}(x)", name.place)
        match scope.look_up(name):
            case BoundValue(value):
                return value
            case bool() as truth:
                return constant_condition(self, truth, name.place)
            case float() as number:
                return self.builder.constant(number)
            case Dim() as dim:
                return self.builder.emit("extent", dims=(dim,))
            case FunctionName(function):
                raise SpecError(
                    f"{name.id!r} is the function {function!r}: call it, as in {name.id}(x)",
                    name.place,
                )

    def call(self, expr: Call, scope: Scope) -> int:
        """The value of a call: an attribute's function, a built-in, or a defined function.

        Raises:
            SpecError: what is called is not a function, or takes other arguments.
        """
        name = expr.function
        bound = scope.names.get(name)
        if isinstance(bound, FunctionName):
            scope.used.add(name)
            name = bound.function
        elif bound is not None:
            raise SpecError(f"{name!r} is a value, not a function", expr.place)
        if name in BUILTINS:
            return BUILTINS[name](self, expr, scope)
        return self.function(name, expr, scope)

    def callable_names(self, scope: Scope) -> tuple[str, ...]:
        """The names that may be called in a scope, for messages."""
        attributes = [n for n, b in scope.names.items() if isinstance(b, FunctionName)]
        return tuple(sorted([*BUILTINS, *self.library.names("function"), *attributes]))

    def function(self, name: str, expr: Call, scope: Scope) -> int:
        """Write out a defined function.

        Raises:
            SpecError: there is none of the name, it takes other arguments, or calls itself.
        """
        if self.library.has("loss", name) and not self.library.has("function", name):
            raise SpecError(
                f"{name!r} is a loss: call it in the model's 'loss' or 'metrics'", expr.place
            )
        if not self.library.has("function", name):
            known = self.callable_names(scope)
            told = unknown_function(self.library, name, known, expr.place, scope.layers)
            raise SpecError(told, expr.place)
        if name in self._inside:
            cycle = " -> ".join([*self._inside[self._inside.index(name) :], name])
            raise SpecError(f"cyclic definition: {cycle}", expr.place)
        if len(self._inside) >= MAX_FUNCTIONS:
            chain = " -> ".join([*self._inside[:3], "..."])
            raise SpecError(
                f"functions call each other more than {MAX_FUNCTIONS} deep: {chain}", expr.place
            )
        definition = self.library.find("function", name, expr.place)
        inner = self._function_scope(name, definition, expr, scope)
        spec = content(definition, schema.Function)
        self._inside.append(name)
        with self.called(name, expr.place):
            document = definition.document
            equations = parse_equations(spec.equations, document.locator(("equations",)))
            self.run(equations, inner, None)
            result = self.result(inner, spec.output, document.place_of(("output",)))
            check_used(inner, spec.inputs, document, "inputs", "input")
            check_used(inner, spec.attributes, document, "attributes", "attribute")
            check_read(equations, inner, ())
        self._inside.pop()
        self.places[result] = expr.place
        return result

    def _function_scope(self, name: str, definition: Definition, expr: Call, scope: Scope) -> Scope:
        """The arguments under the function's own names, once their shapes have been matched."""
        spec, document = content(definition, schema.Function), definition.document
        attributes = attributes_of(
            self.library, f"function {name!r}", expr, spec.attributes, document, scope
        )
        values = inputs_of(self, expr, scope, list(spec.inputs), attributes=list(spec.attributes))
        inner = Scope(dict(attributes))
        sizes = {n: d for n, d in attributes.items() if isinstance(d, Dim)}
        for given, axes in spec.inputs.items():
            if axes != "any":
                fail, found = self.failure(values[given], expr.place), self.type_of(values[given])
                match(f"{name}: {given}", axes, found, sizes, inner.rest, fail)
            inner.names[given] = BoundValue(values[given])
        inner.names.update({n: d for n, d in sizes.items() if n not in inner.names})
        return inner

    def result(self, scope: Scope, name: str, place: Place) -> int:
        """The value of a definition's output name, which an equation must have computed.

        Raises:
            SpecError: none has.
        """
        bound = scope.look_up(Name(name, place=place))
        if name not in scope.assigned or not isinstance(bound, BoundValue):
            raise SpecError(f"output {name!r} is not computed by the equations", place)
        return bound.value
