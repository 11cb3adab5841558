"""Writer of one function as Python source code. The names of operations come from a *dialect*: the
source code of one framework.

If a value has no name in the spec and is read only once, it gets no variable: its expression is
written inside the expression that reads it. A variable is reused for a new value of the same name
if the old value is not read again.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.convert.source.literals import PYTHON, identifier, text, unique
from harness.errors import UsageError
from harness.program.dims import Dim, Shape
from harness.program.ir import Node, Type

# Line breaks in the style of a code formatter: a long line is broken inside its brackets.

INDENT = "    "
LINE = 99


def bracketed(indent: int, head: str, items: Sequence[str], tail: str) -> list[str]:
    """Return the source lines of ``head(items)tail``: on one line if they fit, else with all items
    on a second line, else with one item per line. ``indent`` is the number of indentation levels.
    """
    space, joined = INDENT * indent, ", ".join(items)
    if len(line := f"{space}{head}{joined}{tail}") <= LINE:
        return [line]
    if len(line := f"{space}{INDENT}{joined}") <= LINE:
        return [f"{space}{head}", line, f"{space}{tail}"]
    return [f"{space}{head}", *(f"{space}{INDENT}{i}," for i in items), f"{space}{tail}"]


def mapping(indent: int, head: str, items: Sequence[tuple[str, str]]) -> list[str]:
    """Return the source lines of ``head{"key": value, ...}``: on one line if they fit, else with
    one item per line. ``indent`` is the number of indentation levels."""
    space = INDENT * indent
    pairs = [f"{text(key)}: {item}" for key, item in items]
    if len(line := f"{space}{head}{{{', '.join(pairs)}}}") <= LINE:
        return [line]
    return [f"{space}{head}{{", *(f"{space}{INDENT}{p}," for p in pairs), f"{space}}}"]


def statement(indent: int, line: str) -> list[str]:
    """Return the source lines of the statement ``line``. A long statement is broken inside the
    parentheses or brackets at its end. ``indent`` is the number of indentation levels."""
    if len(INDENT) * indent + len(line) <= LINE or not line.endswith((")", "]")):
        return [INDENT * indent + line]
    depth, start = 0, len(line)
    while start == len(line) or depth:
        start = max(line.rfind(bracket, 0, start) for bracket in "()[]")
        depth += 1 if line[start] in ")]" else -1
    return bracketed(indent, line[: start + 1], _items(line[start + 1 : -1]), line[-1])


def _items(arguments: str) -> list[str]:
    """Split the text of a call's arguments at the commas that are outside of brackets."""
    items, depth = [""], 0
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            items.append("")
        elif items[-1] or character != " ":
            items[-1] += character
    return items


# Expressions of Python source. They contain text, and numbers of values that get names later.

# The precedence of an expression, from low to high. ``and``, ``or`` and ``not`` share the lowest.
CONDITION, COMPARISON, OR, AND, SUM, PRODUCT, UNARY, ATOM = range(8)
_PLACE = re.compile(r"([%^]\d+)")


@dataclass(frozen=True)
class Code:
    """An expression of the generated source.

    ``parts`` are texts and numbers of program values. For a number, the value's variable is
    inserted. ``level`` is the precedence of the expression's operator. ``plain`` is True if the
    expression is a Python number and not a tensor.
    """

    parts: tuple[str | int, ...]
    level: int = ATOM
    plain: bool = False

    def within(self, level: int) -> tuple[str | int, ...]:
        """Return ``parts``, for use as an operand at precedence ``level``. If the precedence of
        this expression is lower, add parentheses."""
        return self.parts if self.level >= level else ("(", *self.parts, ")")


def value(number: int) -> Code:
    """Return the expression that reads the variable of a program value; ``number`` is its value
    number."""
    return Code((number,))


def number(figure: float) -> Code:
    """Return a Python number as an expression."""
    text = repr(figure).replace("e+", "e")
    return Code((text,), ATOM if figure >= 0 else UNARY, plain=True)


def fill(template: str, *operands: Code, plain: bool = False) -> Code:
    """Fill a template, e.g. ``torch.exp(%0)``, with operands: ``%0`` is the first operand. ``^0``
    is the first operand too, with parentheses if it needs them before a dot or ``[``. ``plain`` is
    True if the result is a Python number and not a tensor.

    A template contains each operand exactly once, because the emitter counts how often values are
    read.
    """
    parts: list[str | int] = []
    for piece in _PLACE.split(template):
        if _PLACE.fullmatch(piece):
            parts += operands[int(piece[1:])].within(ATOM if piece[0] == "^" else 0)
        elif piece:
            parts.append(piece)
    return Code(tuple(parts), ATOM, plain)


def infix(sign: str, level: int, left: Code, right: Code) -> Code:
    """Return the expression ``left sign right``, e.g. ``a + b``, with the necessary parentheses.
    ``level`` is the precedence of the operator."""
    # Python would chain comparisons: ``a < b < c`` means ``a < b and b < c``.
    first = left.within(level + 1 if level <= COMPARISON else level)
    parts = (*first, f" {sign} ", *right.within(level + 1))
    return Code(parts, level, left.plain and right.plain)


def listed(codes: Sequence[Code]) -> Code:
    """Return expressions separated by commas, as in ``a, b, c``."""
    parts: list[str | int] = []
    for code in codes:
        parts += [", ", *code.parts] if parts else code.parts
    return Code(tuple(parts), 0)


# Expressions longer than this are split into variables, so lines have at most 99 characters.
WIDTH = 72
FREE = ("batch", "time")
# Operations whose source is the same for Python numbers and tensors.
NUMERIC = (
    *("negative", "add", "subtract", "multiply", "divide", "less", "less_equal", "equal"),
    *("not_equal", "logical_not", "logical_and", "logical_or"),
)


def count_reads(nodes: Iterable[Node], wanted: Iterable[int]) -> Counter[int]:
    """Count how often each value is read, including reads in loop bodies. Each value in ``wanted``
    gets one more read, because the function returns it."""
    reads = Counter(wanted)
    for node in nodes:
        reads.update(node.inputs)
        if node.body is not None and node.op != "call":
            reads.update(count_reads(node.body.nodes, node.body.outputs))
    return reads


class Dialect(ABC):
    """The interface of a framework's source code. Each framework has a subclass, which says how
    operations and loops are written."""

    @abstractmethod
    def code(self, e: Emitter, node: Node, operands: Sequence[Code]) -> Code:
        """Return the expression that applies a node's operation to ``operands``."""

    @abstractmethod
    def filled(self, e: Emitter, figure: Code, shape: Shape) -> Code:
        """Return the expression of an array with ``shape`` in which every entry is the number
        ``figure``."""

    @abstractmethod
    def scan(self, e: Emitter, node: Node) -> None:
        """Write a loop over time steps."""

    def noise(self, e: Emitter, law: Mapping[str, Any], shape: Shape) -> Code:
        """Return an expression that draws new random noise at every call. ``law`` is the
        distribution, with the keys of :mod:`harness.language.noise`.

        Raises:
            NotImplementedError: exports to this framework contain no training code.
        """
        raise NotImplementedError


@dataclass
class Emitter:
    """The writer of one function. It has the lines written so far, and the variables in use.

    Program values are identified by their numbers.

    - ``base`` returns the name of a value in the spec, or "".
    - ``left`` counts how often each value will still be read.
    - ``pending`` maps a value without a variable to its expression, which is still to be written.
      ``text`` maps every other value to its variable.
    - ``owner`` maps a variable to the last value that was assigned to it.
    - ``size_names`` maps each free size, such as ``time``, to its variable.
    - ``like`` is the source of a tensor of the model's dtype, e.g. ``x``, or of the dtype itself,
      as the dialect needs it.
    """

    dialect: Dialect
    types: Mapping[int, Type]
    base: Callable[[int], str]
    sizes: Mapping[str, int]
    like: str
    depth: int = 2
    lines: list[str] = field(default_factory=list)
    text: dict[int, str] = field(default_factory=dict)
    pending: dict[int, Code] = field(default_factory=dict)
    left: Counter[int] = field(default_factory=Counter)
    owner: dict[str, int] = field(default_factory=dict)
    home: dict[int, int] = field(default_factory=dict)
    reserved: set[str] = field(default_factory=lambda: {*FREE, *PYTHON, "self"})
    size_names: dict[str, str] = field(default_factory=lambda: {size: size for size in FREE})
    direct: Counter[int] = field(default_factory=Counter)
    readers: dict[int, Node] = field(default_factory=dict)
    words: dict[int, str] = field(default_factory=dict)
    turned: dict[int, Code] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)
    call: Callable[[Emitter, Node], None] | None = None

    # --- Values and names

    def argument(self, number_: int, name: str) -> str:
        """Choose a variable name for an argument of the function, and return the name."""
        variable_name = self.name(name)
        self.hold(number_, variable_name)
        return variable_name

    def hold(self, number_: int, name: str) -> None:
        """Record that the variable ``name`` now holds the value with this number."""
        self.text[number_], self.owner[name], self.home[number_] = name, number_, self.depth

    def name(self, base: str) -> str:
        """Return a name for a new variable. The name is ``base`` if there is no such variable or if
        its old value is not read again; otherwise it is a new name such as ``base_2``."""
        base = identifier(base)
        old_value = self.owner.get(base)
        if (
            old_value is not None
            and not self.left[old_value]
            and self.home.get(old_value) == self.depth
        ):
            return base
        return self._unused_name(base)

    def _unused_name(self, base: str) -> str:
        return unique(base, {*self.owner, *self.reserved, *self.size_names.values()})

    def render(self, code: Code) -> str:
        """Return the source text of an expression, without counting its values as read."""
        return "".join(p if isinstance(p, str) else self.text[p] for p in code.parts)

    def read(self, code: Code) -> str:
        """Return the source text of an expression, and count each value in it as read once. Call it
        when the text is written to the function."""
        self.left.subtract(p for p in code.parts if isinstance(p, int))
        return self.render(code)

    def write(self, line: str) -> None:
        """Append a statement to the lines of the function."""
        self.lines += statement(self.depth, line)

    def operand(self, number_: int) -> Code:
        """Return the expression of a value for use as an operand: its variable, or, if it has none,
        the expression that computes it."""
        code = self.pending.get(number_)
        if code is None:
            return value(number_)
        if not code.plain:
            del self.pending[number_]
        return code

    def assign(self, number_: int, code: Code) -> None:
        """Write a statement that assigns the expression ``code`` to a variable. Record that the
        variable holds the value with this number."""
        text = self.read(code)
        name = self.name(self.base(number_) or self.words.get(number_, "part"))
        if name != text:
            self.write(f"{name} = {text}")
        self.hold(number_, name)

    def tensor(self, code: Code) -> Code:
        """Convert a Python number to a tensor; return a tensor unchanged."""
        return self.dialect.filled(self, code, ()) if code.plain else code

    def size(self, dim: Dim | int) -> str:
        """Format a dimension, such as ``86`` or ``time``."""
        sizes = {name: Dim(size) for name, size in self.sizes.items()}
        dim = Dim.of(dim).substitute(sizes)
        dim = dim.substitute({name: Dim.of(self._size_name(name)) for name in dim.names})
        return str(dim).replace("*", " * ")

    def _size_name(self, size: str) -> str:
        """Return the variable of a free size. It differs from all other variables."""
        if size not in self.size_names:
            self.size_names[size] = self._unused_name(size)
        return self.size_names[size]

    def shape(self, shape: Iterable[Dim | int]) -> str:
        """Format a shape as a tuple of dimensions."""
        sizes = [self.size(dim) for dim in shape]
        return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"

    # --- Nodes

    def block(self, nodes: Sequence[Node], outputs: Iterable[int]) -> None:
        """Write the nodes of the function's body or of a loop's body. ``outputs`` are the values
        that the body returns."""
        before = self.direct, self.readers
        self.direct, self.readers = Counter(outputs), {}
        for node in nodes:
            self.direct.update(node.inputs)
            self.readers.update((i, node) for i in node.inputs)
        for node in nodes:
            self.node(node)
        self.direct, self.readers = before

    def alone(self, number_: int) -> bool:
        """Return whether a value will be read exactly once, by the body (of the function or of a
        loop) that is being written. Such a value needs no variable."""
        return self.left[number_] == 1 == self.direct[number_]

    def node(self, node: Node) -> None:
        """Write the source of one node."""
        if node.op == "call":
            assert self.call is not None
            self.call(self, node)
        elif node.op == "scan":
            self.dialect.scan(self, node)
        elif node.outputs[0] not in self.skipped:
            self.settle(node.output, self.built(node), node.op)

    def settle(self, number_: int, code: Code, op: str = "") -> None:
        """Decide how a computed value is written. A value that has no name and is read once stays
        an expression, to be written where it is read. Any other value is assigned to a variable
        now."""
        self.words[number_] = WORDS.get(op, op or "part")
        if code.plain or (self.alone(number_) and not self.base(number_)):
            self.pending[number_] = code
        else:
            self.assign(number_, code)

    def built(self, node: Node) -> Code:
        """Return the expression of a node. If the expression would be too long, its longest
        operands are assigned to variables before it."""
        operands = [self.operand(i) for i in node.inputs]
        while True:
            code = self.expression(node, operands)
            # Python numbers do not become variables.
            long = [n for n, o in enumerate(operands) if len(o.parts) > 1 and not o.plain]
            if len(self.render(code)) <= WIDTH or not long:
                return code
            longest = max(long, key=lambda n: len(self.render(operands[n])))
            self.assign(node.inputs[longest], operands[longest])
            operands[longest] = value(node.inputs[longest])

    def expression(self, node: Node, operands: Sequence[Code]) -> Code:
        """Return the expression of a node, given the expressions of its operands."""
        if node.op == "constant":
            figure = node.attributes["value"]
            return number(figure if self.types[node.output].kind == "float" else int(figure))
        if node.op == "extent":
            sizes = [self.size(dim) for dim in node.attributes["dims"]]
            factors = [f"({s})" if " " in s else s for s in sizes] or ["1"]
            return Code((" * ".join(factors),), PRODUCT if factors[1:] else ATOM, plain=True)
        if node.op == "stop_gradient" and operands[0].plain:
            return operands[0]
        if node.op == "power" and all(operand.plain for operand in operands):
            is_root = operands[1].parts == ("0.5",)
            template = "math.sqrt(%0)" if is_root else "math.pow(%0, %1)"
            return fill(template, *operands[: 2 - is_root], plain=True)
        if node.op in ("exp", "log", "tanh", "sqrt") and operands[0].plain:
            return fill(f"math.{node.op}(%0)", operands[0], plain=True)
        if node.op == "where" and operands[0].plain:
            condition, chosen, other = operands
            sides = chosen.within(COMPARISON), other.within(COMPARISON)
            parts = (*sides[0], " if ", *condition.parts, " else ", *sides[1])
            return Code(parts, 0, chosen.plain and other.plain)
        if node.op == "astype" and operands[0].plain:
            return fill("float(%0)", operands[0], plain=True)
        if node.op == "broadcast_to" and operands[0].plain:
            return self.dialect.filled(self, operands[0], node.attributes["shape"])
        # torch.where and jnp.where accept one Python number if the other argument is a tensor.
        is_choice = node.op == "where" and not (operands[1].plain and operands[2].plain)
        if node.op not in (*NUMERIC, "power") and not is_choice:
            operands = [self.tensor(operand) for operand in operands]
        return self.dialect.code(self, node, operands)

    def operands(self, numbers: Sequence[int], width: int = WIDTH) -> list[Code]:
        """Return the expressions of several values for one line of source, e.g. as arguments. If
        the line would be longer than ``width``, some of the values are assigned to variables."""
        codes = [self.operand(n) for n in numbers]
        for n, code in enumerate(codes):
            total = sum(len(self.render(c)) for c in codes)
            if total > width and len(code.parts) > 1 and not code.plain:
                self.assign(numbers[n], code)
                codes[n] = value(numbers[n])
        return codes

    def free_sizes(self, arguments: Sequence[int], further: Sequence[str] = ()) -> list[str]:
        """Return source lines that read the free sizes (batch, time, and other sizes without a
        number) from the shapes of the function's arguments, e.g. ``time = x.shape[1]``. A size is
        read only if the function or one of the lines ``further`` uses it. ``arguments`` are value
        numbers.

        Raises:
            UsageError: no argument has an axis from which a free size can be read.
        """
        lines = []
        sizes = {name: Dim(size) for name, size in self.sizes.items()}
        code = "\n".join([*self.lines, *further])
        for size, name in self.size_names.items():
            if not re.search(rf'(?<![\w".]){name}(?![\w"])', code):
                continue
            axes = [
                (f"{self.text[a]}.shape[{axis}]", length.substitute(sizes))
                for a in arguments
                for axis, length in enumerate(self.types[a].shape)
            ]
            candidates = [_solved(text, dim) for text, dim in axes if _tells(dim, size)]
            if not candidates:
                raise UsageError(
                    f"cannot be written as source: no input has {size!r} as one of its axes"
                )
            simplest = min(candidates, key=lambda text: text.count(" "))
            lines.append(f"{name} = {simplest}")
        return lines


def _tells(dim: Dim, size: str) -> bool:
    """Return whether the size ``size`` can be computed from the length of an axis. For example,
    ``time`` can be computed from ``2 * time + 1``."""
    return len(dim.terms) == 1 and dim.terms[0][0] == size and dim.terms[0][1] > 0


def _solved(text: str, dim: Dim) -> str:
    ((_, factor),) = dim.terms
    if dim.constant:
        text += f" {'-+'[dim.constant < 0]} {abs(dim.constant)}"
    return text if factor == 1 else f"{f'({text})' if dim.constant else text} // {factor}"


WORDS: Mapping[str, str] = {
    "reshape": "reshaped",
    "matmul": "product",
    "tensordot": "product",
    "add": "total",
    "subtract": "difference",
    "multiply": "product",
    "divide": "quotient",
    "permute_dims": "transposed",
    "max": "largest",
    "sum": "total",
    "concat": "joined",
    "where": "chosen",
    "slice": "part",
    "squeeze": "part",
    "select": "part",
    "expand_dims": "expanded",
    "broadcast_to": "expanded",
    "take": "rows",
    "take_along_axis": "taken",
    "negative": "negated",
    "astype": "floats",
    "equal": "mask",
    "not_equal": "mask",
    "less": "mask",
    "less_equal": "mask",
    "logical_not": "mask",
    "logical_and": "mask",
    "logical_or": "mask",
}
