"""Names in one body of equations: their bindings, and which of them are used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.errors import Place, SpecError, did_you_mean, placed
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
    """A name bound to a value of the program."""

    value: int


@dataclass(frozen=True)
class FunctionName:
    """An attribute such as ``activation``, bound to a function's name."""

    function: str


# Possible bindings of a name. A float or truth value is an attribute; a Dim is a size.
Binding = BoundValue | FunctionName | bool | float | Dim


@dataclass
class Scope:
    """The names of one body of equations, with their allowed uses.

    ``changing`` are given names that an equation may assign (states, statistics, slots). ``layers``
    are the instances that equations can call. ``losses`` is True if equations can call losses.
    """

    names: dict[str, Binding]
    changing: frozenset[str] = frozenset()
    rest: RestAxes = field(default_factory=RestAxes)
    used: set[str] = field(default_factory=set)
    assigned: dict[str, Place] = field(default_factory=dict)
    layers: Mapping[str, Any] = field(default_factory=dict)
    losses: bool = False

    def look_up(self, name: Name) -> Binding:
        """Return a name's binding and mark the name as used; :class:`SpecError` if unknown."""
        if name.id not in self.names:
            known = sorted(self.names)
            if hint := shipped_hints().constants.get(name.id):
                raise SpecError(f"unknown name {name.id!r}: {hint}", name.place)
            raise SpecError(
                f"unknown name {name.id!r}{did_you_mean(name.id, known)} "
                f"(known here: {', '.join(known)})",
                name.place,
            )
        self.used.add(name.id)
        return self.names[name.id]

    def check_assignable(self, target: Name) -> None:
        """Check that a name is assigned only once, and is not a given name.

        Raises:
            SpecError: the name is already assigned, or given.
        """
        name = target.id
        if name in self.assigned:
            raise SpecError(
                f"{name!r} is assigned twice; the first time at {self.assigned[name]}; "
                "give one of the two another name",
                target.place,
            )
        if name in self.names and name not in self.changing:
            raise SpecError(
                f"{name!r} cannot be assigned: it is given; choose another name", target.place
            )

    def assign(self, target: Name, value: int) -> None:
        """Bind a name to a value that an equation has computed."""
        self.check_assignable(target)
        self.assigned[target.id] = target.place
        self.names[target.id] = BoundValue(value)

    def size(self, expression: Expr) -> Dim:
        """Return the dimension of an expression of sizes in scope, and mark its names as used.

        Raises:
            SpecError: the expression contains something else.
        """
        found = size_of(expression, as_sizes(self.names))
        self.used.update(names_in(expression))
        return found

    def value(self, name: str) -> int:
        """Return the value of a name that is known to be a tensor."""
        bound = self.names[name]
        assert isinstance(bound, BoundValue)
        return bound.value


def as_sizes(names: Mapping[str, object]) -> dict[str, Dim]:
    """Return the names that may be the length of an axis: sizes, and whole-number attributes."""
    found = ((name, _as_size(binding)) for name, binding in names.items())
    return {name: size for name, size in found if size is not None}


def _as_size(binding: object) -> Dim | None:
    if isinstance(binding, float) and binding.is_integer():
        return Dim(int(binding))
    return binding if isinstance(binding, Dim) else None


def is_whole(expression: Expr, scope: Scope) -> bool:
    """Return whether an expression consists of sizes and whole numbers."""
    match expression:
        case Number(value):
            return isinstance(value, int)
        case Negate(operand):
            return is_whole(operand, scope)
        case Name(name):
            return _as_size(scope.names.get(name)) is not None
        case Binary("+" | "-" | "*", left, right):
            return is_whole(left, scope) and is_whole(right, scope)
        case _:
            return False


def names_in(expression: Expr) -> set[str]:
    """Return the names of an expression of sizes."""
    if isinstance(expression, Binary):
        return names_in(expression.left) | names_in(expression.right)
    return {expression.id} if isinstance(expression, Name) else set()


def check_used(
    scope: Scope, names: Iterable[str], document: Document, section: str | KeyPath, kind: str
) -> None:
    """Check that every declared name is used; changing an unused one would have no effect.

    Raises:
        SpecError: a name is not used.
    """
    _check_among(scope.used, "used", names, document, section, kind)


def check_assigned(
    scope: Scope, names: Iterable[str], document: Document, section: str | KeyPath, kind: str
) -> None:
    """Check that every carried name is assigned a next value.

    Raises:
        SpecError: a name is not assigned.
    """
    _check_among(scope.assigned, "assigned", names, document, section, kind)


def _check_among(
    found: Container[str],
    done: str,
    names: Iterable[str],
    document: Document,
    section: str | KeyPath,
    kind: str,
) -> None:
    path = (section,) if isinstance(section, str) else section
    for name in names:
        if name not in found:
            place = document.place_of_key((*path, name))
            raise SpecError(f"{kind} {name!r} is declared but never {done}", place)


def check_read(equations: Sequence[Assignment], scope: Scope, kept: Iterable[str]) -> None:
    """Check that every computed name is read by another equation, or is in ``kept``.

    Raises:
        SpecError: a name is never read.
    """
    kept = frozenset(kept)
    for assignment in equations:
        for target in assignment.targets:
            if target.id not in scope.used and target.id not in kept:
                raise SpecError(f"{target.id!r} is computed but never used", target.place)


# Values during the evaluation of equations, and their places.


class LanguageValues(ABC):
    """The values that the functions of the language work on; ``places`` are for messages."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.places: dict[int, Place] = {}

    @abstractmethod
    def tensor(self, expr: Expr, scope: Scope) -> int:
        """Return the value of an expression."""

    @contextmanager
    def at(self, place: Place) -> Iterator[None]:
        """Give the place of an equation to the nodes made in the block, and to their errors.

        Raises:
            SpecError: a node's operands do not fit.
        """
        before = self.builder.place
        self.builder.place = f"{place.file}:{place.line}"
        try:
            with placed(place):
                yield
        except TypeMismatch as mismatch:
            raise SpecError(str(mismatch), place) from None
        finally:
            self.builder.place = before

    def type_of(self, value: int) -> Type:
        """Return the type of a value."""
        return self.builder.types[value]

    def floats(self, value: int) -> int:
        """Return an index or a condition as floats; return floats unchanged."""
        if self.type_of(value).kind == "float":
            return value
        return self.builder.emit("astype", value)

    def tell(self, value: int) -> str:
        """Return a value's name, type and origin, for messages."""
        name = self.builder.names.get(value, "the value")
        place = self.places.get(value)
        return f"{name} {self.type_of(value)}" + (f" (from {place})" if place else "")

    def failure(self, value: int, place: Place) -> Callable[[str], SpecError]:
        """Return a function that makes errors about a value passed to a call at ``place``."""
        return lambda message: SpecError(f"{message}: {self.tell(value)}", place)

    def emit(self, op: str, *values: int, place: Place, **attributes: Any) -> int:
        """Append a primitive; an error names the origin of each operand.

        Raises:
            SpecError: the operands do not fit.
        """
        try:
            return self.builder.emit(op, *values, **attributes)
        except TypeMismatch as mismatch:
            origins = " and ".join(map(self.tell, dict.fromkeys(values)))
            raise SpecError(f"{mismatch}: {origins}", place) from None
