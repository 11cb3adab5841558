"""Scopes: the names that equations can use, their values, and which names the equations have
used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.errors import Place, SpecError, did_you_mean, with_place
from harness.files.forms import KeyPath
from harness.language.axes import RestAxes, size_of
from harness.language.document import Document
from harness.language.hints import shipped_hints
from harness.language.tree import Assignment, Binary, Expr, Name, Negate, Number
from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.infer import TypeMismatch
from harness.program.ir import Type


@dataclass(frozen=True)
class BoundValue:
    """The value of a name in equations, as the number of a program value."""

    value: int


@dataclass(frozen=True)
class FunctionName:
    """The value of an attribute such as ``activation``, which is the name of a function."""

    function: str


@dataclass(frozen=True)
class Missing:
    """The value of a name in equations if the layer does not have the parameter of this name (key
    ``when``). The name then counts as 0."""


# An attribute with one value per axis, or one pair (before, after) per axis, or ``same``.
AxisValues = tuple[Dim, ...] | tuple[tuple[Dim, Dim], ...] | str
# The possible bindings of a name. Floats and truth values are attributes; a Dim is a size.
Binding = BoundValue | FunctionName | Missing | bool | float | Dim | AxisValues


@dataclass
class Scope:
    """The names that equations can read and assign.

    Equations may assign new names, and the names in ``changing`` (states, statistics, slots), but
    no other existing name. ``used`` collects the names that were read, and ``assigned`` the names
    that were assigned, with positions. ``rest`` has the axes for which ``...`` stands. ``layers``
    has the layers that equations can call. ``losses`` is True if equations can call losses.
    """

    names: dict[str, Binding]
    changing: frozenset[str] = frozenset()
    rest: RestAxes = field(default_factory=RestAxes)
    used: set[str] = field(default_factory=set)
    assigned: dict[str, Place] = field(default_factory=dict)
    layers: Mapping[str, Any] = field(default_factory=dict)
    losses: bool = False

    def look_up(self, name: Name) -> Binding:
        """Return what a name stands for, and mark the name as used. Raises :class:`SpecError` if
        the name is unknown."""
        if name.id not in self.names:
            names = sorted(self.names)
            if hint := shipped_hints().constants.get(name.id):
                raise SpecError(f"unknown name {name.id!r}: {hint}", name.place)
            raise SpecError(
                f"unknown name {name.id!r}{did_you_mean(name.id, names)} "
                f"(known here: {', '.join(names)})",
                name.place,
            )
        self.used.add(name.id)
        return self.names[name.id]

    def check_assignable(self, target: Name) -> None:
        """Check that an equation may assign the name ``target``.

        Raises:
            SpecError: an equation has already assigned the name, or the name exists and is not in
                ``changing``.
        """
        name = target.id
        if name in self.assigned:
            raise SpecError(
                f"{name!r} is assigned twice; the first time at {self.assigned[name]}; "
                "give one of the two a different name",
                target.place,
            )
        if name in self.names and name not in self.changing:
            raise SpecError(
                f"{name!r} cannot be assigned: it already has a value here, such as an input or a "
                "size; choose a different name",
                target.place,
            )

    def assign(self, target: Name, value: int) -> None:
        """Bind the name on the left side of an equation to ``value``, the number of the right
        side's value."""
        self.check_assignable(target)
        self.assigned[target.id] = target.place
        self.names[target.id] = BoundValue(value)

    def size(self, expression: Expr) -> Dim:
        """Convert an expression of sizes and integers to a dimension. Mark the names in the
        expression as used.

        Raises:
            SpecError: the expression contains something else.
        """
        size = size_of(expression, select_sizes(self.names))
        self.used.update(names_in(expression))
        return size

    def value(self, name: str) -> int:
        """Return the number of the program value to which the name ``name`` is bound."""
        bound = self.names[name]
        assert isinstance(bound, BoundValue)
        return bound.value


def select_sizes(names: Mapping[str, object]) -> dict[str, Dim]:
    """Return those of the names that may be used as the length of an axis (sizes and integer
    attributes), as a dictionary from name to dimension."""
    pairs = ((name, _as_size(binding)) for name, binding in names.items())
    return {name: size for name, size in pairs if size is not None}


def _as_size(binding: object) -> Dim | None:
    if isinstance(binding, float) and binding.is_integer():
        return Dim(int(binding))
    return binding if isinstance(binding, Dim) else None


def is_whole_number(expression: Expr, scope: Scope) -> bool:
    """Return whether an expression consists only of sizes and integers, such as ``2 * units``."""
    match expression:
        case Number(value):
            return isinstance(value, int)
        case Negate(operand):
            return is_whole_number(operand, scope)
        case Name(name):
            return _as_size(scope.names.get(name)) is not None
        case Binary("+" | "-" | "*", left, right):
            return is_whole_number(left, scope) and is_whole_number(right, scope)
        case _:
            return False


def names_in(expression: Expr) -> set[str]:
    """Return the names of sizes that occur in an expression."""
    if isinstance(expression, Binary):
        return names_in(expression.left) | names_in(expression.right)
    return {expression.id} if isinstance(expression, Name) else set()


def check_used(
    scope: Scope, names: Iterable[str], document: Document, section: str | KeyPath, kind: str
) -> None:
    """Check that equations use every name in ``names``, because an unused name is probably a
    mistake. ``section`` and ``kind`` say in the message where and what the name is.

    Raises:
        SpecError: a name is not used.
    """
    _check_all_in(scope.used, "used", names, document, section, kind)


def check_assigned(
    scope: Scope, names: Iterable[str], document: Document, section: str | KeyPath, kind: str
) -> None:
    """Check that equations assign a new value to every name in ``names``, e.g. to every state.
    ``section`` and ``kind`` say in the message where and what the name is.

    Raises:
        SpecError: a name is not assigned.
    """
    _check_all_in(scope.assigned, "assigned", names, document, section, kind)


def _check_all_in(
    names_present: Container[str],
    done: str,
    names: Iterable[str],
    document: Document,
    section: str | KeyPath,
    kind: str,
) -> None:
    path = (section,) if isinstance(section, str) else section
    for name in names:
        if name not in names_present:
            place = document.place_of_key((*path, name))
            raise SpecError(f"{kind} {name!r} is declared but never {done}", place)


def check_read(equations: Sequence[Assignment], scope: Scope, exempt: Iterable[str]) -> None:
    """Check that the equations use a name of every assignment, or that the name is in ``exempt``.
    A call can have results that nobody needs before a result that is used.

    Raises:
        SpecError: no name of an assignment is ever read.
    """
    used = {*scope.used, *exempt}
    for assignment in equations:
        if used.isdisjoint(target.id for target in assignment.targets):
            target = assignment.targets[0]
            raise SpecError(f"{target.id!r} is computed but never used", target.place)


# Values during the evaluation of equations, and their positions in the spec.


class LanguageValues(ABC):
    """The interface with which functions of the spec language evaluate expressions and append
    primitives to the program.

    ``places`` maps value numbers to positions in the spec, for messages. ``computed_indices`` maps
    each sum or product of indices to its smallest possible value and to the same numbers as floats.
    """

    def __init__(self) -> None:
        self.builder = Builder()
        self.places: dict[int, Place] = {}
        self.computed_indices: dict[int, tuple[Dim, int]] = {}

    @abstractmethod
    def tensor(self, expr: Expr, scope: Scope) -> int:
        """Evaluate an expression and return its value number."""

    @contextmanager
    def with_place(self, place: Place) -> Iterator[None]:
        """Inside the ``with`` block, give new nodes and errors the position ``place`` of an
        equation.

        Raises:
            SpecError: a node's operands do not fit.
        """
        before = self.builder.place
        self.builder.place = f"{place.file}:{place.line}"
        try:
            with with_place(place):
                yield
        except TypeMismatch as mismatch:
            raise SpecError(str(mismatch), place) from None
        finally:
            self.builder.place = before

    def type_of(self, value: int) -> Type:
        """Return the type of a value."""
        return self.builder.types[value]

    def to_floats(self, value: int) -> int:
        """Cast an index or a condition to floats; return floats unchanged."""
        if self.type_of(value).kind == "float":
            return value
        return self.builder.emit("astype", value)

    def describe(self, value: int) -> str:
        """Return a text about a value for messages: its name, its type, and its position in the
        spec."""
        name = self.builder.names.get(value, "the value")
        place = self.places.get(value)
        return f"{name} {self.type_of(value)}" + (f" (from {place})" if place else "")

    def error_about(self, value: int, place: Place) -> Callable[[str], SpecError]:
        """Return a function that converts a message to an error at ``place``. The function adds a
        description of ``value``, which is usually an argument of a call, to the message."""
        return lambda message: SpecError(f"{message}: {self.describe(value)}", place)

    def emit(self, op: str, *values: int, place: Place, **attributes: Any) -> int:
        """Append a primitive to the program, and return the value number of its result. An error
        message describes each operand.

        Raises:
            SpecError: the operands do not fit.
        """
        try:
            return self.builder.emit(op, *values, **attributes)
        except TypeMismatch as mismatch:
            origins = " and ".join(map(self.describe, dict.fromkeys(values)))
            raise SpecError(f"{mismatch}: {origins}", place) from None
