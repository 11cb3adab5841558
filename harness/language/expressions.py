"""Parser of equations, which have the syntax of Python expressions.

Only known constructs are allowed, and the text is never executed.
"""

import ast
import keyword
import math
import re
from collections.abc import Callable
from functools import lru_cache

from harness.errors import Place, SpecError, shorten
from harness.language import tree
from harness.language.hints import shipped_hints
from harness.language.names import LONGEST

# Check of an equation's tokens before Python's parser reads them. Python's parser accepts much more
# than an equation needs, treats some different non-ASCII letters as equal, and raises different
# errors for deep nesting, depending on its version. A text that passes the check contains only
# ASCII names, decimal numbers and known signs.

MAX_BLOCK = 20_000
MAX_LINE = 2_000
MAX_NESTING = 40
MAX_SIGNS = 40
MAX_NUMBER = 100

_TOKEN = re.compile(
    r"(?P<space>[ ]+)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<number>(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|(?P<bad_number>\.?\d[\w.]*)"
    r"|(?P<refused>:=|//=?|\*\*=|[-+*/@%&|^]=|->|<<=?|>>=?|<>)"
    r"|(?P<sign>\*\*|\.\.\.|[<>=!]=|[-+*/@<>=,:&|~])"
    r"|(?P<open>[(\[])"
    r"|(?P<close>[)\]])"
    r"|(?P<other>.)",
    re.ASCII | re.DOTALL,
)
_CLOSING = {"(": ")", "[": "]"}
# Patterns of a name after a dot, and of a name before a dot or a bracket.
_NAME_AFTER_DOT = re.compile(r"\.\s*([A-Za-z_]\w*)", re.ASCII)
_NAME_BEFORE = re.compile(r"([A-Za-z_]\w*)\s*([.(])\s*$", re.ASCII)
# Usual names of imported modules, such as np.
_MODULES = frozenset(
    {"np", "numpy", "torch", "F", "nn", "jnp", "jax", "lax", "tf", "keras", "ops", "math", "K"}
)


def check_tokens(text: str, locate: Callable[[int, int], Place]) -> str:
    """Check each token of a text, and return the text without comments. Raises SpecError for the
    first token that the language does not have. ``locate(line, column)`` returns a position in the
    file."""
    if len(text) > MAX_BLOCK:
        message = f"the equations have {len(text):,} characters; at most {MAX_BLOCK:,} are allowed"
        raise SpecError(message, locate(0, 0))
    # The language has no quoted text, so '#' always starts a comment.
    lines = [line.partition("#")[0] for line in text.split("\n")]
    _Checker(locate).check(lines)
    return "\n".join(lines)


class _Checker:
    def __init__(self, locate: Callable[[int, int], Place]) -> None:
        self.locate = locate
        self.brackets: list[tuple[str, Place]] = []
        self.signs = 0

    def check(self, lines: list[str]) -> None:
        for number, line in enumerate(lines):
            if len(line) > MAX_LINE:
                message = (
                    f"this line has {len(line):,} characters; at most {MAX_LINE:,} are allowed"
                )
                raise SpecError(message, self.locate(number, MAX_LINE))
            for match in _TOKEN.finditer(line):
                if match.lastgroup in ("refused", "other"):
                    raise SpecError(_rejection_text(match), self.locate(number, match.start()))
                if match.lastgroup != "space":
                    place = self.locate(number, match.start())
                    self.token(str(match.lastgroup), match.group(), place)
        if self.brackets:
            bracket, place = self.brackets[-1]
            raise SpecError(f"{bracket!r} is never closed", place)

    def token(self, kind: str, source: str, place: Place) -> None:
        self.signs = self.signs + 1 if source in ("+", "-", "~") else 0
        if self.signs > MAX_SIGNS:
            raise SpecError(f"there are more than {MAX_SIGNS} signs in a row", place)
        match kind:
            case "name":
                _check_name(source, place)
            case "number" if len(source) <= MAX_NUMBER:
                pass
            case "number" | "bad_number":
                message = "write a plain decimal number, such as 10, 0.5 or 1e-3"
                raise SpecError(f"{message}, found {shorten(source)!r}", place)
            case "open":
                self.open(source, place)
            case "close":
                self.close(source, place)

    def open(self, source: str, place: Place) -> None:
        self.brackets.append((source, place))
        if len(self.brackets) > MAX_NESTING:
            raise SpecError(f"brackets are nested more than {MAX_NESTING} deep", place)

    def close(self, source: str, place: Place) -> None:
        if not self.brackets:
            raise SpecError(f"{source!r} has no opening bracket", place)
        opened, where = self.brackets.pop()
        if _CLOSING[opened] != source:
            message = f"expected {_CLOSING[opened]!r} to close {opened!r} at {where}"
            raise SpecError(f"{message}, found {source!r}", place)


def _check_name(name: str, place: Place) -> None:
    if keyword.iskeyword(name) and name != "None":
        hint = shipped_hints().words.get(name, "it is a Python keyword; choose a different name")
        raise SpecError(f"{name!r} is not part of the language; {hint}", place)
    if len(name) > LONGEST:
        message = f"a name has at most {LONGEST} characters, found {len(name)}: {shorten(name)!r}"
        raise SpecError(message, place)
    if name.startswith("__"):
        raise SpecError(
            f"a name may not begin with two underscores, found {shorten(name)!r}", place
        )


def _rejection_text(match: re.Match[str]) -> str:
    source, line, hints = match.group(), match.string, shipped_hints()
    if not source.isascii():
        return f"only ASCII characters are allowed outside comments, found {source!r}"
    if source not in hints.signs:
        return f"{source!r} is not part of the language"
    name_before, name_after = (
        _NAME_BEFORE.search(line[: match.end()]),
        _NAME_AFTER_DOT.match(line, match.start()),
    )
    if name_after is not None:
        module, name = (
            name_before is not None and name_before.group(1) in _MODULES,
            name_after.group(1),
        )
        call_text = f"write {name}(...)" if module else f"write {name}(x, ...)"
        hint = hints.after_dot.get(name) or hints.functions.get(name, call_text)
        return f"names after a dot are not part of the language: {hint}; found '.{shorten(name)}'"
    called_with = _NAME_BEFORE.search(line[: match.start()])
    if source in "'\"" and called_with is not None and called_with.group(1) in hints.functions:
        hint = hints.functions[called_with.group(1)]
        return f"text in quotes is not part of the language; {hint}"
    return f"{hints.signs[source]}; found {source!r}"


Locate = Callable[[int, int], Place]
_Placed = ast.stmt | ast.expr | ast.keyword

MAX_TREE_DEPTH = 100
MAX_INTEGER = 2**63 - 1
# Size of the caches of parsed texts, which help because many layers have the same definition.
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
def parse_equations(text: str, locate: Locate) -> tuple[tree.Assignment, ...]:
    """Parse equations, one assignment per line.

    ``locate(line, column)`` converts a line and a column of the text, counted from 0, to a position
    in the file.

    Raises:
        SpecError: the text contains something that the language does not allow, or no equation.
    """
    reader = _Reader(text, locate)
    module = reader.parse("exec")
    assert isinstance(module, ast.Module)
    if not module.body:
        raise SpecError(
            "there is no equation here; write one per line, as 'y = x @ W + b'", locate(0, 0)
        )
    return tuple(map(reader.assignment, module.body))


@lru_cache(CACHED)
def parse_expression(text: str, locate: Locate) -> tree.Expr:
    """Parse a single expression. ``locate`` converts positions, as in :func:`parse_equations`.
    Raises SpecError if the text is not an expression."""
    reader = _Reader(text, locate)
    if not reader.code.strip():
        raise SpecError(
            "there is no expression here; write one, as 'mean(x, axis=-1)'", locate(0, 0)
        )
    parsed = reader.parse("eval")
    assert isinstance(parsed, ast.Expression)
    return reader.expression(parsed.body)


class _Reader:
    """A converter of a text to the syntax tree of equations. It first parses the text as Python,
    and rejects everything that equations must not contain."""

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
            message = (
                f"cannot read {shorten(source)!r}: {error.msg}{self.continuation_hint(mode, line)}"
            )
            raise SpecError(message, self.locate(line, column)) from None
        except (RecursionError, MemoryError, ValueError):
            message = "this is too deeply nested; use several equations"
            raise SpecError(message, self.locate(0, 0)) from None

    def continuation_hint(self, mode: str, line: int) -> str:
        """Return a hint if a line looks like the continuation of the previous line; otherwise "".
        ``mode`` says whether the text is equations or a single expression."""
        begun = any(text.strip() for text in self.lines[:line])
        more = mode == "eval" or self.lines[line].lstrip()[:1] in (*"+-*/@&|.,)]",)
        return "; put an expression of several lines in brackets" if begun and more else ""

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

    def assignment(self, statement: ast.stmt) -> tree.Assignment:
        if not isinstance(statement, ast.Assign):
            message = "expected 'name = expression' or 'a, b = call(...)'"
            raise self.error(
                statement, message + self.continuation_hint("exec", statement.lineno - 1)
            )
        if len(statement.targets) > 1:
            raise self.error(statement, "expected one '=' per line")
        target = statement.targets[0]
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        value = self.expression(statement.value)
        place = self.place(statement)
        return tree.Assignment(tuple(map(self.target, names)), value, place=place)

    def target(self, node: ast.expr) -> tree.Name:
        if not isinstance(node, ast.Name):
            message = "expected a name to the left of '='"
            if isinstance(node, ast.Tuple | ast.List):
                message = (
                    "write all names in one row, as in 'y, h, c = lstm(x)', or 'y = lstm(x)' alone"
                    f"; {message}"
                )
            raise self.error(node, message)
        return tree.Name(node.id, place=self.place(node))

    def expression(self, node: ast.expr) -> tree.Expr:
        self.depth += 1
        if self.depth > MAX_TREE_DEPTH:
            raise self.error(node, f"nested more than {MAX_TREE_DEPTH} deep; use several equations")
        try:
            return self.convert(node)
        finally:
            self.depth -= 1

    def convert(self, node: ast.expr) -> tree.Expr:
        place = self.place(node)
        match node:
            case ast.Constant():
                return self.number(node)
            case ast.Name(id):
                return tree.Name(id, place=place)
            case ast.BinOp(left, operator, right):
                symbol = _BINARY[type(operator)]
                return tree.Binary(
                    symbol, self.expression(left), self.expression(right), place=place
                )
            case ast.UnaryOp(ast.USub(), operand):
                return tree.Negate(self.expression(operand), place=place)
            case ast.UnaryOp(ast.Invert(), operand):
                return tree.Invert(self.expression(operand), place=place)
            case ast.UnaryOp():
                raise self.error(node, "leave out the leading '+', which does nothing")
            case ast.Compare(left, [operator], [right]):
                symbol = _COMPARE[type(operator)]
                return tree.Compare(
                    symbol, self.expression(left), self.expression(right), place=place
                )
            case ast.Compare():
                raise self.error(node, "expected one comparison at a time")
            case ast.Call():
                return self.call(node, place)
            case ast.Subscript(value, index):
                items = index.elts if isinstance(index, ast.Tuple) else [index]
                if not items:
                    raise self.error(node, "expected at least one index in the brackets")
                indices = tuple(map(self.item, items))
                return tree.Index(self.expression(value), indices, place=place)
            case ast.Tuple():
                raise self.error(node, "expected one value; write one equation for each")
            case ast.List():
                raise self.error(node, "a list can only be an argument of a call")
            case _:
                raise self.error(
                    node, "expected a number, a name, a call, an index or + - * / ** @ & | ~"
                )

    def number(self, node: ast.Constant) -> tree.Number:
        value = node.value
        if value is ...:
            raise self.error(node, "'...' can only be an index or the value of a keyword")
        if value is None:
            raise self.error(node, "None can only be an index, where it makes a new axis")
        assert isinstance(value, int | float)
        if not math.isfinite(value) or (isinstance(value, int) and value > MAX_INTEGER):
            raise self.error(node, "this number is too large")
        return tree.Number(value, place=self.place(node))

    def call(self, node: ast.Call, place: Place) -> tree.Call:
        if not isinstance(node.func, ast.Name):
            raise self.error(node, "only a name can be called")
        arguments = tuple(map(self.argument, node.args))
        keywords: dict[str, tree.Expr] = {}
        for pair in node.keywords:
            if pair.arg is None:
                raise self.error(pair, "'**' cannot unpack; write the arguments out")
            if pair.arg in keywords:
                raise self.error(pair, f"argument {pair.arg!r} is given twice")
            if isinstance(pair.value, ast.Constant) and pair.value.value is ...:
                keywords[pair.arg] = tree.Rest(place=self.place(pair.value))
            else:
                keywords[pair.arg] = self.argument(pair.value)
        return tree.Call(node.func.id, arguments, tuple(keywords.items()), place=place)

    def argument(self, node: ast.expr) -> tree.Expr:
        if isinstance(node, ast.List | ast.Tuple):
            return tree.List(tuple(map(self.expression, node.elts)), place=self.place(node))
        return self.expression(node)

    def item(self, node: ast.expr) -> tree.Item:
        place = self.place(node)
        match node:
            case ast.Constant(value) if value is ...:
                return tree.Rest(place=place)
            case ast.Constant(None):
                return tree.NewAxis(place=place)
            case ast.Slice(lower, upper, step):
                start, stop = (
                    None if step_value is None else self.expression(step_value)
                    for step_value in (lower, upper)
                )
                step_value = None if step is None else self.integer(step)
                return tree.SliceItem(start, stop, step_value, place=place)
            case ast.Name() | ast.BinOp() | ast.UnaryOp(ast.USub(), ast.Name() | ast.BinOp()):
                return tree.IndexItem(self.expression(node), place=place)
            case _:
                return tree.IndexItem(self.integer(node), place=place)

    def integer(self, node: ast.expr) -> int:
        match node:
            case ast.Constant(int(value)) if value <= MAX_INTEGER:
                return value
            case ast.UnaryOp(ast.USub(), ast.Constant(int(value))) if value <= MAX_INTEGER:
                return -value
            case _:
                raise self.error(node, "an index must be an integer, a slice or '...'")
