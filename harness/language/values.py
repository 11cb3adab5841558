"""The values of equations that are being evaluated, and where each was made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from harness.errors import Place, SpecError, placed
from harness.language.expressions import Expr
from harness.language.scope import Scope
from harness.program.builder import Builder
from harness.program.infer import TypeMismatch
from harness.program.ir import Type


class LanguageValues(ABC):
    """The values that the functions of the language work on; ``places`` are for messages."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.places: dict[int, Place] = {}

    @abstractmethod
    def tensor(self, expr: Expr, scope: Scope) -> int:
        """The value of an expression."""

    @contextmanager
    def at(self, place: Place) -> Iterator[None]:
        """Give the place of an equation to the nodes made inside, and to their errors.

        Raises:
            SpecError: what is made inside does not fit.
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
        """A value's type."""
        return self.builder.types[value]

    def floats(self, value: int) -> int:
        """An index or a condition as floats; floats as they are."""
        if self.type_of(value).kind == "float":
            return value
        return self.builder.emit("astype", value)

    def tell(self, value: int) -> str:
        """A value's name, type and origin, for messages."""
        name = self.builder.names.get(value, "the value")
        place = self.places.get(value)
        return f"{name} {self.type_of(value)}" + (f" (from {place})" if place else "")

    def failure(self, value: int, place: Place) -> Callable[[str], SpecError]:
        """Makes errors about a value handed to a call at ``place``."""
        return lambda message: SpecError(f"{message}: {self.tell(value)}", place)

    def emit(self, op: str, *values: int, place: Place, **attributes: Any) -> int:
        """Append a primitive; an error tells where each operand came from.

        Raises:
            SpecError: the operands do not fit.
        """
        try:
            return self.builder.emit(op, *values, **attributes)
        except TypeMismatch as mismatch:
            origins = " and ".join(map(self.tell, dict.fromkeys(values)))
            raise SpecError(f"{mismatch}: {origins}", place) from None
