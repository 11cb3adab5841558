"""Evaluation of equations: each equation becomes nodes of a program. Calls of functions are
replaced by the functions' equations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from harness.errors import Place, SpecError, SpecErrors, did_you_mean, known_names
from harness.language import schema, tree
from harness.language.attributes import Attribute, evaluate_attributes, evaluate_inputs
from harness.language.axes import INPUT_KINDS, entries_of_input, match
from harness.language.axis_attributes import is_required
from harness.language.axis_functions import MULTIPLE_RESULTS
from harness.language.builtins import BUILTINS
from harness.language.document import Document
from harness.language.expressions import parse_equations
from harness.language.library import Definition, Library, content
from harness.language.operators import (
    compare,
    constant_condition,
    evaluate_condition,
    index_arithmetic,
    join_conditions,
    matrix_product,
    negate,
    select_items,
)
from harness.language.scope import (
    BoundValue,
    FunctionName,
    LanguageValues,
    Missing,
    Scope,
    check_read,
    check_used,
)
from harness.program.dims import Dim
from harness.program.ir import Kind

OPERATORS: Mapping[str, str] = {
    "+": "add",
    "-": "subtract",
    "*": "multiply",
    "/": "divide",
    "**": "power",
}
# Limits of the size of a program. A few short definitions can produce a huge program, because every
# call of a function is inlined.
MAX_VALUES = 20_000
MAX_FUNCTIONS = 20
MAX_DEPTH = 120


# Prefix of the names of losses whose target is class indices.
SPARSE = "sparse_"


class Evaluator(LanguageValues):
    """An evaluator of equations that may call functions. A subclass also evaluates calls of layers
    and losses."""

    def __init__(self, library: Library) -> None:
        super().__init__()
        self.library = library
        self._inside: list[str] = []  # stack of the functions being inlined, to detect recursion
        self._depth = 0

    @contextmanager
    def with_call_place(self, name: str, place: Place) -> Iterator[None]:
        """Extend errors inside the ``with`` block, which evaluates the definition ``name``: add the
        position of its call to the message.

        Raises:
            SpecError: the ``with`` block raised a SpecError; the call is added to its message.
        """
        try:
            yield
        except SpecError as error:
            unit_of = self.library.unit_of
            if error.place is None or unit_of(error.place) == unit_of(place):
                raise
            if isinstance(error, SpecErrors):
                raise
            raise SpecError(f"{error.message}; in {name} called at {place}", error.place) from None

    def run_equations(
        self, equations: Sequence[tree.Assignment], scope: Scope, label: str | None
    ) -> None:
        """Evaluate equations in order, and add the assigned names to the scope (the names that
        equations can read).

        The program stores each value under the name ``label + name``. If ``label`` is None (inside
        functions), the values have no names.

        Raises:
            SpecError: an equation is wrong, or assigns to a name that must not be assigned.
        """
        for assignment in equations:
            values = self.evaluate_assignment(assignment, scope)
            for target, value in zip(assignment.targets, values, strict=True):
                if target.id in BUILTINS:
                    raise SpecError(
                        f"{target.id!r} is reserved: it is a function of the language; "
                        "choose a different name",
                        target.place,
                    )
                scope.assign(target, value)
                if label is not None:
                    at = f"{target.place.file}:{target.place.line}"
                    self.builder.name(value, f"{label}{target.id}", at)
                self.places.setdefault(value, target.place)

    def evaluate_assignment(self, assignment: tree.Assignment, scope: Scope) -> Sequence[int]:
        """Evaluate the right side of an equation. Return a value for each name on the left side.

        Raises:
            SpecError: the number of names differs from the number of results.
        """
        expr, count = assignment.value, len(assignment.targets)
        if count > 1 and isinstance(expr, tree.Call) and expr.function in MULTIPLE_RESULTS:
            with self.with_place(expr.place):
                results = MULTIPLE_RESULTS[expr.function](self, expr, scope)
            if count == len(results):
                return results
            raise SpecError(
                f"{expr.function} returns {len(results)} results; {count} names are assigned",
                assignment.place,
            )
        if count > 1:
            raise SpecError(
                f"only layers and {', '.join(MULTIPLE_RESULTS)} return several results; "
                "to split a tensor, use indices, as in a = x[0]",
                assignment.place,
            )
        return [self.tensor(assignment.value, scope)]

    def tensor(self, expr: tree.Expr, scope: Scope) -> int:
        """Evaluate an expression and return its value number.

        Raises:
            SpecError: the expression has no value, or the program is too large or nested too deep.
        """
        if self._depth >= MAX_DEPTH:
            raise SpecError(f"functions are nested more than {MAX_DEPTH} levels deep", expr.place)
        if len(self.builder.types) > MAX_VALUES:
            raise SpecError(f"the equations compute more than {MAX_VALUES:,} values", expr.place)
        self._depth += 1
        with self.with_place(expr.place):
            value = self._tensor(expr, scope)
        self._depth -= 1
        self.places.setdefault(value, expr.place)
        return value

    def _tensor(self, expr: tree.Expr, scope: Scope) -> int:
        match expr:
            case tree.Number(value):
                return self.builder.constant(value)
            case tree.Negate(tree.Number(value)):
                return self.builder.constant(-value)
            case tree.Negate(operand):
                return self.emit("negative", self.tensor(operand, scope), place=expr.place)
            case tree.Name():
                return self._evaluate_name(expr, scope)
            case tree.Invert(operand):
                return negate(self, evaluate_condition(self, "~", operand, scope), expr.place)
            case tree.Binary("&" | "|" as operator, left, right):
                return join_conditions(self, operator, left, right, scope, expr.place)
            case tree.Binary("@", left, right):
                a, b = self.tensor(left, scope), self.tensor(right, scope)
                return self.matrix_product(a, b, expr.place)
            case tree.Binary("+", left, tree.Name(name)) if scope.names.get(name) == Missing():
                scope.used.add(name)
                return self.tensor(left, scope)
            case tree.Binary(operator, left, right):
                a, b = self.tensor(left, scope), self.tensor(right, scope)
                if "index" in (self.type_of(a).kind, self.type_of(b).kind):
                    return index_arithmetic(self, expr, a, b, scope)
                return self.emit(OPERATORS[operator], a, b, place=expr.place)
            case tree.Compare(operator, left, right):
                return compare(self, expr, operator, left, right, scope)
            case tree.Index(inner, items):
                return select_items(self, self.tensor(inner, scope), items, expr.place, scope)
            case tree.Call():
                return self.call(expr, scope)
            case tree.List() | tree.Rest():
                raise SpecError("a list or '...' is not a value by itself", expr.place)

    def matrix_product(self, left: int, right: int, place: Place) -> int:
        """Return the value number of the product ``left @ right``.

        Raises:
            SpecError: the operands do not fit.
        """
        return matrix_product(self, left, right, place)

    def _evaluate_name(self, name: tree.Name, scope: Scope) -> int:
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
            case Missing():
                return self.builder.constant(0.0)
            case tuple() | str():
                raise SpecError(
                    f"{name.id!r} has one value per axis: it can only be an argument of windows",
                    name.place,
                )
            case FunctionName(function):
                raise SpecError(
                    f"{name.id!r} is the function {function!r}: call it, as in {name.id}(x)",
                    name.place,
                )

    def call(self, expr: tree.Call, scope: Scope) -> int:
        """Evaluate a call of a built-in function, of a defined function, or of an attribute that is
        a function.

        Raises:
            SpecError: the name is not a function, or the arguments are wrong.
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
        return self.call_function(name, expr, scope)

    def callable_names(self, scope: Scope) -> tuple[str, ...]:
        """Return the names of all functions that equations in a scope can call, to list them in
        error messages."""
        attributes = [n for n, b in scope.names.items() if isinstance(b, FunctionName)]
        return tuple(sorted([*BUILTINS, *self.library.names("function"), *attributes]))

    def call_function(self, name: str, expr: tree.Call, scope: Scope) -> int:
        """Evaluate a call of a defined function: append the nodes of its equations to the program.

        Raises:
            SpecError: the function is unknown, the arguments are wrong, or the function calls
                itself.
        """
        if self.library.has("loss", name) and not self.library.has("function", name):
            raise SpecError(
                f"{name!r} is a loss: call it in the model's 'loss' or 'metrics'", expr.place
            )
        if not self.library.has("function", name):
            known = self.callable_names(scope)
            message = _unknown_function_text(self.library, name, known, expr.place, scope.layers)
            raise SpecError(message, expr.place)
        if name in self._inside:
            cycle = " -> ".join([*self._inside[self._inside.index(name) :], name])
            raise SpecError(f"cyclic definition: {cycle}", expr.place)
        if len(self._inside) >= MAX_FUNCTIONS:
            chain = " -> ".join([*self._inside[:3], "..."])
            raise SpecError(
                f"function calls are nested more than {MAX_FUNCTIONS} deep: {chain}", expr.place
            )
        definition = self.library.find("function", name, expr.place)
        spec = content(definition, schema.Function)
        inner, *_ = self.evaluate_arguments("function", name, spec, definition, expr, scope)
        self._inside.append(name)
        with self.with_call_place(name, expr.place):
            result = self.inline_equations(spec, definition.document, inner, None)
        self._inside.pop()
        self.places[result] = expr.place
        return result

    def evaluate_arguments(
        self,
        kind: str,
        name: str,
        spec: schema.Function | schema.Loss,
        definition: Definition,
        expr: tree.Call,
        scope: Scope,
    ) -> tuple[Scope, dict[str, int], dict[str, Attribute]]:
        """Evaluate the arguments of a call. Return three things: a scope for the equations of the
        called definition, a dictionary from input name to value number, and the attributes."""
        attributes = evaluate_attributes(
            self.library, f"{kind} {name!r}", expr, spec.attributes, definition.document, scope
        )
        values = evaluate_inputs(
            self, expr, scope, list(spec.inputs), attributes=list(spec.attributes)
        )
        inner = Scope(dict(attributes))
        sizes = {n: d for n, d in attributes.items() if isinstance(d, Dim)}
        self.bind_inputs(name, expr, spec.inputs, values, inner, sizes, kind == "function")
        inner.names.update({n: d for n, d in sizes.items() if n not in inner.names})
        return inner, values, attributes

    def inline_equations(
        self,
        spec: schema.Function | schema.Loss,
        document: Document,
        inner: Scope,
        label: str | None,
    ) -> int:
        """Evaluate the equations of a called definition in the scope ``inner``, and check that they
        use all declared names. Return the value number of the output. ``label`` starts the names of
        the values; None gives them no names."""
        equations = parse_equations(spec.equations, document.locator(("equations",)))
        self.run_equations(equations, inner, label)
        result = self.find_output(inner, spec.output, document.place_of(("output",)))
        for section in ("inputs", "attributes"):
            check_used(inner, getattr(spec, section), document, section, section[:-1])
        check_read(equations, inner, ())
        return result

    def _check_kinds(
        self, expr: tree.Call, inputs: Mapping[str, Any], values: Mapping[str, int]
    ) -> None:
        """Check that each argument has the declared kind: floats, an index or booleans.

        Raises:
            SpecError: an argument has a different kind. If a different loss takes arguments of this
                kind, the message names this loss.
        """
        for name, declared in inputs.items():
            type_ = self.type_of(values[name])
            if (entries := entries_of_input(declared)).kind != type_.kind:
                raise self.error_about(values[name], expr.place)(
                    f"{expr.function}: {name} is declared as {INPUT_KINDS[entries.kind]}, found "
                    f"{INPUT_KINDS[type_.kind]}{self._sparse_hint(expr.function, type_.kind)}"
                )

    def _sparse_hint(self, loss: str, kind: Kind) -> str:
        """Return a hint that names the variant of ``loss`` for targets of the kind ``kind``: with
        the prefix ``sparse_`` for class indices, without it for floats. Return "" if there is no
        variant."""
        variant, target = f"{SPARSE}{loss}", "class indices"
        if loss.startswith(SPARSE):
            variant, target = loss.removeprefix(SPARSE), "floats"
        fits = kind == ("float" if loss.startswith(SPARSE) else "index")
        return f"; {variant} takes {target}" if fits and self.library.has("loss", variant) else ""

    def bind_inputs(
        self,
        owner: str,
        expr: tree.Call,
        inputs: Mapping[str, Any],
        values: Mapping[str, int],
        inner: Scope,
        sizes: dict[str, Dim],
        any_kind: bool = False,
    ) -> None:
        """Check the kinds and shapes of the arguments ``values``. In the scope ``inner``, bind the
        names of the inputs to them. Lengths of axes are added to ``sizes``. With ``any_kind``,
        kinds are not checked.

        Raises:
            SpecError: a shape, or the bound of an index, does not match.
        """
        if not any_kind:
            self._check_kinds(expr, inputs, values)
        for name, declared in inputs.items():
            value = values[name]
            axes = declared.shape if isinstance(declared, schema.Input) else declared
            if axes != "any":
                fail = self.error_about(value, expr.place)
                match(f"{owner}: {name}", axes, self.type_of(value), sizes, inner.rest, fail)
            inner.names[name] = BoundValue(value)
        for name, declared in inputs.items():
            argument_type, entries = self.type_of(values[name]), entries_of_input(declared)
            if entries.size is None or argument_type.bound is None:
                continue
            argument_size = argument_type.bound - entries.more
            size = entries.size
            declared_size = (
                Dim(size) if isinstance(size, int) else sizes.setdefault(size, argument_size)
            )
            if declared_size != argument_size:
                bound = str(declared_size + entries.more)
                name_text = bound if isinstance(size, int) else f"{size}{' + 1' * entries.more}"
                size_text = bound if name_text == bound else f"{name_text} = {bound}"
                # Suggest a number only if the size is an attribute, which the model can set.
                hint = f" (write {size}: {argument_size})" if size in inner.names else ""
                raise self.error_about(values[name], expr.place)(
                    f"{owner}: {name} must be an index below {size_text}, "
                    f"found an index below {argument_type.bound}{hint}"
                )

    def find_output(self, scope: Scope, name: str, place: Place) -> int:
        """Return the value that the equations of a definition have assigned to its output ``name``.

        Raises:
            SpecError: no equation computes the output.
        """
        bound = scope.look_up(tree.Name(name, place=place))
        if name not in scope.assigned or not isinstance(bound, BoundValue):
            raise SpecError(f"output {name!r} is not computed by the equations", place)
        return bound.value


def _unknown_function_text(
    library: Library,
    name: str,
    known: Iterable[str],
    place: Place,
    layers: Iterable[str] = (),
) -> str:
    """Return the error message for an unknown function. ``known`` has the names that can be called;
    ``layers`` lists those of them that are layers."""
    if hint := library.hints.functions.get(name):
        return f"the language has no function {name!r}: {hint}"
    if library.has("layer", name):
        declared = content(library.find("layer", name), schema.Layer).attributes
        sizes = "".join(f", {n}: ..." for n, default in declared.items() if is_required(default))
        return (
            f"{name!r} is a layer: declare it under 'layers', as in "
            f"'{name}_1: {{layer: {name}{sizes}}}', and call that name"
        )
    known, layers = tuple(known), tuple(layers)
    files = (library.misplaced_hint(kind, name, place) for kind in ("function", "loss"))
    hint = next(filter(None, files), did_you_mean(name, known))
    if hint or not layers:
        return f"unknown function {name!r}{hint}{known_names(known, hint)}"
    others_text = known_names((n for n in known if n not in layers), hint)
    return f"unknown function or layer {name!r} (layers here: {', '.join(layers)}){others_text}"
