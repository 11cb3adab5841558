"""Syntax tree of equations."""

from dataclasses import dataclass, field

from harness.errors import Place


@dataclass(frozen=True)
class ExprNode:
    """A part of an equation; equality ignores the place."""

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
    """``...`` in an index or as a keyword's value: all axes that are not named."""


@dataclass(frozen=True)
class Call(ExprNode):
    function: str
    arguments: tuple["Expr", ...]
    keywords: tuple[tuple[str, "Expr"], ...]


@dataclass(frozen=True)
class Binary(ExprNode):
    """A binary operation; ``operator`` is one of + - * / ** @ & |."""

    operator: str
    left: "Expr"
    right: "Expr"


@dataclass(frozen=True)
class Negate(ExprNode):
    operand: "Expr"


@dataclass(frozen=True)
class Invert(ExprNode):
    """A negated condition: ``~condition``."""

    operand: "Expr"


@dataclass(frozen=True)
class Compare(ExprNode):
    """A comparison; ``operator`` is one of < <= > >= == !=."""

    operator: str
    left: "Expr"
    right: "Expr"


@dataclass(frozen=True)
class IndexItem(ExprNode):
    """A single position along an axis, a number or a size; a minus sign counts from the end."""

    value: "int | Expr"


@dataclass(frozen=True)
class SliceItem(ExprNode):
    """A slice; ``start`` and ``stop`` are numbers or sizes, from the end with a minus sign."""

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
    """A list ``[a, b]``, allowed only as an argument of a call."""

    items: tuple["Expr", ...]


@dataclass(frozen=True)
class Assignment(ExprNode):
    """``a = value``, or ``a, b = value`` for a call with several results."""

    targets: tuple[Name, ...]
    value: "Expr"


Expr = Number | Name | Call | Binary | Negate | Invert | Compare | Index | List | Rest
Item = IndexItem | SliceItem | NewAxis | Rest
