"""Classes for the syntax tree of equations."""

from dataclasses import dataclass, field

from harness.errors import Place


@dataclass(frozen=True)
class ExprNode:
    """A node of an equation's syntax tree. Comparison with ``==`` ignores the position in
    the file."""

    place: Place = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Number(ExprNode):
    """A decimal integer or a finite float. It is never negative: the text ``-2`` is a ``Negate`` of
    2."""

    value: int | float


@dataclass(frozen=True)
class Name(ExprNode):
    id: str


@dataclass(frozen=True)
class Rest(ExprNode):
    """The expression ``...`` in an index or as a keyword argument; it stands for all axes that are
    not named."""


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
    """A position along an axis in an index such as ``x[:, -1]``: a number or a size. A negated
    position counts from the end."""

    value: "int | Expr"


@dataclass(frozen=True)
class SliceItem(ExprNode):
    """A slice such as ``1:`` in an index. ``start`` and ``stop`` are numbers or sizes; if negated,
    they count from the end."""

    start: "Expr | None"
    stop: "Expr | None"
    step: int | None


@dataclass(frozen=True)
class NewAxis(ExprNode):
    """The expression ``None`` in an index, which inserts an axis of length 1."""


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
    """An equation ``a = value``, or ``a, b = value`` for a call with several results."""

    targets: tuple[Name, ...]
    value: "Expr"


Expr = Number | Name | Call | Binary | Negate | Invert | Compare | Index | List | Rest
Item = IndexItem | SliceItem | NewAxis | Rest
