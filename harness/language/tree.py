"""The parts of equations, as data."""

from dataclasses import dataclass, field

from harness.errors import Place


@dataclass(frozen=True)
class ExprNode:
    """Part of an equation. Two nodes are equal if they say the same, wherever they stand."""

    place: Place = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Number(ExprNode):
    """A decimal integer or a finite float; never negative (see ``Negate``)."""

    value: int | float


@dataclass(frozen=True)
class Name(ExprNode):
    id: str


@dataclass(frozen=True)
class Rest(ExprNode):
    """``...``: all axes that are not named, in an index or as the value of a keyword."""


@dataclass(frozen=True)
class Call(ExprNode):
    function: str
    arguments: tuple["Expr", ...]
    keywords: tuple[tuple[str, "Expr"], ...]


@dataclass(frozen=True)
class Binary(ExprNode):
    """``operator`` is one of + - * / ** @ & |."""

    operator: str
    left: "Expr"
    right: "Expr"


@dataclass(frozen=True)
class Negate(ExprNode):
    operand: "Expr"


@dataclass(frozen=True)
class Invert(ExprNode):
    """``~condition``."""

    operand: "Expr"


@dataclass(frozen=True)
class Compare(ExprNode):
    """``operator`` is one of < <= > >= == !=."""

    operator: str
    left: "Expr"
    right: "Expr"


@dataclass(frozen=True)
class IndexItem(ExprNode):
    """One position along an axis, a number or a size; a minus sign counts from its end."""

    value: "int | Expr"


@dataclass(frozen=True)
class SliceItem(ExprNode):
    """``start`` and ``stop`` are numbers and sizes; a minus sign counts from the end."""

    start: "Expr | None"
    stop: "Expr | None"
    step: int | None


@dataclass(frozen=True)
class NewAxis(ExprNode):
    """``None`` in an index: a new axis of length 1."""


@dataclass(frozen=True)
class Index(ExprNode):
    value: "Expr"
    items: tuple["Item", ...]


@dataclass(frozen=True)
class List(ExprNode):
    """``[a, b]``, which only an argument of a call can be."""

    items: tuple["Expr", ...]


@dataclass(frozen=True)
class Assignment(ExprNode):
    """``a = value``, or ``a, b = value`` for a call with several results."""

    targets: tuple[Name, ...]
    value: "Expr"


Expr = Number | Name | Call | Binary | Negate | Invert | Compare | Index | List | Rest
Item = IndexItem | SliceItem | NewAxis | Rest
