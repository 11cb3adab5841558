"""Equations in Python's expression syntax: parsed and whitelisted, never evaluated."""

import ast
import math
from collections.abc import Callable
from functools import lru_cache

from harness.errors import Place, SpecError, shorten
from harness.language.tokens import check_tokens
from harness.language.tree import (
    Assignment,
    Binary,
    Call,
    Compare,
    Expr,
    ExprNode,
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
)

Locate = Callable[[int, int], Place]
_Placed = ast.stmt | ast.expr | ast.keyword

MAX_TREE_DEPTH = 100
MAX_INTEGER = 2**63 - 1
# Texts that are kept as they were read: each layer of a stack has its definition's again.
CACHED = 1024

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
    ast.MatMult: "@",
    ast.BitAnd: "&",
    ast.BitOr: "|",
}
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


@lru_cache(CACHED)
def parse_equations(text: str, locate: Locate) -> tuple[Assignment, ...]:
    """Parse a block of equations, one assignment a line.

    ``locate(line, column)`` turns a position inside ``text``, counted from 0, into a
    place of the file. Raises SpecError at the first thing that is not part of the
    language, and for a block without any equation.
    """
    reader = _Reader(text, locate)
    module = reader.parse("exec")
    assert isinstance(module, ast.Module)
    if not module.body:
        raise SpecError("no equation here; write one a line, as in 'y = x @ W + b'", locate(0, 0))
    return tuple(map(reader.assignment, module.body))


@lru_cache(CACHED)
def parse_expression(text: str, locate: Locate) -> Expr:
    """Parse one expression, as ``parse_equations`` does; SpecError for what is none."""
    reader = _Reader(text, locate)
    if not reader.code.strip():
        raise SpecError("no expression here; write one, as in 'mean(x, axis=-1)'", locate(0, 0))
    tree = reader.parse("eval")
    assert isinstance(tree, ast.Expression)
    return reader.expression(tree.body)


class _Reader:
    """Turns Python's syntax tree of one text into ours, refusing all that is not listed."""

    def __init__(self, text: str, locate: Locate) -> None:
        self.locate = locate
        self.code = check_tokens(text, locate)
        self.lines = self.code.split("\n")
        self.depth = 0

    def parse(self, mode: str) -> ast.AST:
        try:
            return ast.parse(self.code.rstrip(), mode=mode)
        except SyntaxError as error:
            line = min(max(error.lineno or 1, 1), len(self.lines)) - 1
            source = self.lines[line]
            column = min(max(error.offset or 1, 1) - 1, len(source))
            message = f"cannot read {shorten(source)!r}: {error.msg}{self.goes_on(mode, line)}"
            raise SpecError(message, self.locate(line, column)) from None
        except (RecursionError, MemoryError, ValueError):
            message = "this is too deeply nested; use several equations"
            raise SpecError(message, self.locate(0, 0)) from None

    def goes_on(self, mode: str, line: int) -> str:
        """A hint where a line may be meant to go on with the one before."""
        begun = any(text.strip() for text in self.lines[:line])
        more = mode == "eval" or self.lines[line].lstrip()[:1] in (*"+-*/@&|.,)]",)
        return "; what goes on in the next line stands in brackets" if begun and more else ""

    def place(self, node: _Placed) -> Place:
        return self.locate(node.lineno - 1, node.col_offset)

    def source(self, node: _Placed) -> str:
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        lines = self.lines[first : last + 1]
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        return shorten(" ".join(lines))

    def error(self, node: _Placed, message: str) -> SpecError:
        return SpecError(f"{message}, found {self.source(node)!r}", self.place(node))

    def assignment(self, statement: ast.stmt) -> Assignment:
        if not isinstance(statement, ast.Assign):
            told = "expected 'name = expression' or 'a, b = call(...)'"
            raise self.error(statement, told + self.goes_on("exec", statement.lineno - 1))
        if len(statement.targets) > 1:
            raise self.error(statement, "expected one '=' a line")
        target = statement.targets[0]
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        value = self.expression(statement.value)
        place = self.place(statement)
        return Assignment(tuple(map(self.target, names)), value, place=place)

    def target(self, node: ast.expr) -> Name:
        if not isinstance(node, ast.Name):
            raise self.error(node, "expected a name to the left of '='")
        return Name(node.id, place=self.place(node))

    def expression(self, node: ast.expr) -> Expr:
        self.depth += 1
        if self.depth > MAX_TREE_DEPTH:
            raise self.error(node, f"more than {MAX_TREE_DEPTH} levels deep; use several equations")
        try:
            return self.convert(node)
        finally:
            self.depth -= 1

    def convert(self, node: ast.expr) -> Expr:
        place = self.place(node)
        match node:
            case ast.Constant():
                return self.number(node)
            case ast.Name(id):
                return Name(id, place=place)
            case ast.BinOp(left, operator, right):
                symbol = _BINARY[type(operator)]
                return Binary(symbol, self.expression(left), self.expression(right), place=place)
            case ast.UnaryOp(ast.USub(), operand):
                return Negate(self.expression(operand), place=place)
            case ast.UnaryOp(ast.Invert(), operand):
                return Invert(self.expression(operand), place=place)
            case ast.UnaryOp():
                raise self.error(node, "leave out the leading '+', which does nothing")
            case ast.Compare(left, [operator], [right]):
                symbol = _COMPARE[type(operator)]
                return Compare(symbol, self.expression(left), self.expression(right), place=place)
            case ast.Compare():
                raise self.error(node, "expected one comparison at a time")
            case ast.Call():
                return self.call(node, place)
            case ast.Subscript(value, index):
                items = index.elts if isinstance(index, ast.Tuple) else [index]
                if not items:
                    raise self.error(node, "expected at least one index in the brackets")
                indices = tuple(map(self.item, items))
                return Index(self.expression(value), indices, place=place)
            case ast.Tuple():
                raise self.error(node, "expected one value; write one equation for each")
            case ast.List():
                raise self.error(node, "a list can only be an argument of a call")
            case _:
                raise self.error(
                    node, "expected a number, a name, a call, an index or + - * / ** @ & | ~"
                )

    def number(self, node: ast.Constant) -> Number:
        value = node.value
        if value is ...:
            raise self.error(node, "'...' can only be an index or the value of a keyword")
        if value is None:
            raise self.error(node, "None can only be an index, where it makes a new axis")
        assert isinstance(value, int | float)
        if not math.isfinite(value) or (isinstance(value, int) and value > MAX_INTEGER):
            raise self.error(node, "this number is too large")
        return Number(value, place=self.place(node))

    def call(self, node: ast.Call, place: Place) -> Call:
        if not isinstance(node.func, ast.Name):
            raise self.error(node, "only a name can be called")
        arguments = tuple(map(self.argument, node.args))
        keywords: dict[str, Expr] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.error(keyword, "'**' cannot unpack; write the arguments out")
            if keyword.arg in keywords:
                raise self.error(keyword, f"argument {keyword.arg!r} is given twice")
            if isinstance(keyword.value, ast.Constant) and keyword.value.value is ...:
                keywords[keyword.arg] = Rest(place=self.place(keyword.value))
            else:
                keywords[keyword.arg] = self.argument(keyword.value)
        return Call(node.func.id, arguments, tuple(keywords.items()), place=place)

    def argument(self, node: ast.expr) -> Expr:
        if isinstance(node, ast.List | ast.Tuple):
            return List(tuple(map(self.expression, node.elts)), place=self.place(node))
        return self.expression(node)

    def item(self, node: ast.expr) -> Item:
        place = self.place(node)
        match node:
            case ast.Constant(value) if value is ...:
                return Rest(place=place)
            case ast.Constant(None):
                return NewAxis(place=place)
            case ast.Slice(lower, upper, step):
                start, stop = (
                    None if each is None else self.expression(each) for each in (lower, upper)
                )
                each = None if step is None else self.integer(step)
                return SliceItem(start, stop, each, place=place)
            case ast.Name() | ast.BinOp() | ast.UnaryOp(ast.USub(), ast.Name() | ast.BinOp()):
                return IndexItem(self.expression(node), place=place)
            case _:
                return IndexItem(self.integer(node), place=place)

    def integer(self, node: ast.expr) -> int:
        match node:
            case ast.Constant(int(value)) if value <= MAX_INTEGER:
                return value
            case ast.UnaryOp(ast.USub(), ast.Constant(int(value))) if value <= MAX_INTEGER:
                return -value
            case _:
                raise self.error(node, "an index must be a whole number, a slice of them or '...'")


__all__ = [
    "MAX_INTEGER",
    "MAX_TREE_DEPTH",
    "Assignment",
    "Binary",
    "Call",
    "Compare",
    "Expr",
    "ExprNode",
    "Index",
    "IndexItem",
    "Invert",
    "Item",
    "List",
    "Locate",
    "Name",
    "Negate",
    "NewAxis",
    "Number",
    "Rest",
    "SliceItem",
    "parse_equations",
    "parse_expression",
]
