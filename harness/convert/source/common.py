"""Source code that all frameworks share: operators, indexing, and the bodies of layers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from harness.convert.source.emitter import (
    AND,
    COMPARISON,
    CONDITION,
    LINE,
    OR,
    PRODUCT,
    SUM,
    UNARY,
    Code,
    Dialect,
    Emitter,
    count_reads,
    fill,
    infix,
    listed,
    statement,
)
from harness.convert.source.idioms import Idioms
from harness.convert.source.layers import LayerForm, Method
from harness.program.dims import Dim, Shape
from harness.program.ir import Node, Program
from harness.program.signature import noise_ports

SIGNS: Mapping[str, tuple[str, int]] = {
    "add": ("+", SUM),
    "subtract": ("-", SUM),
    "multiply": ("*", PRODUCT),
    "divide": ("/", PRODUCT),
    "matmul": ("@", PRODUCT),
    "less": ("<", COMPARISON),
    "less_equal": ("<=", COMPARISON),
    "equal": ("==", COMPARISON),
    "not_equal": ("!=", COMPARISON),
    "logical_or": ("|", OR),
    "logical_and": ("&", AND),
}
# Comparisons with the operands exchanged: ``x > 0`` instead of ``0 < x``.
EXCHANGED = {"<": ">", "<=": ">="}
# The operators of Python for conditions that are no tensors.
PLAIN_CONDITIONS = {"|": "or", "&": "and"}


# A template of source text, or a function that returns one for a node.
Template = str | Callable[[Emitter, Node], str]


def common_code(
    e: Emitter, node: Node, operands: Sequence[Code], templates: Mapping[str, Template]
) -> Code | None:
    """Return the source code of a node, if the code is the same in all frameworks, or if
    ``templates`` has a template (a source text with gaps) for the operation; otherwise return None.

    ``templates`` maps operations to the templates of one framework. A template may contain names of
    the node's attributes, as in ``jnp.reshape(%0, {shape})``, and ``{like}``, a tensor of the
    model's dtype. ``%0`` stands for the first operand; in the template of ``concat``, it is the
    list of all operands.

    Three keys are not operations. The template ``square`` is for ``power`` with exponent 2, and
    ``swap`` for ``permute_dims`` that swaps the first two axes. ``keepdims`` is the source text of
    the argument ``keepdims=True``.
    """
    code = _indexed(e, node, operands) or _operator(node.op, operands)
    if code is not None:
        return code
    if node.op in ("permute_dims", "sum", "max") and not _axes(node):
        return operands[0]
    name = node.op
    if name == "power" and operands[1].parts == ("2.0",):
        name = "square"
    elif name == "concat":
        operands = [listed(operands)]
    elif swaps_first(node):
        name = "swap"
        e.turned[node.output] = operands[0]
    return _filled_template(e, node, operands, name, templates) if name in templates else None


def _operator(op: str, operands: Sequence[Code]) -> Code | None:
    """Return the code of an operation that has a sign, e.g. ``+`` or ``~``, or None."""
    if op in SIGNS:
        sign, level = SIGNS[op]
        left, right = operands
        if sign in EXCHANGED and left.plain and not right.plain:
            return infix(EXCHANGED[sign], level, right, left)
        if sign in PLAIN_CONDITIONS and left.plain and right.plain:
            return infix(PLAIN_CONDITIONS[sign], CONDITION, left, right)
        return infix(sign, level, left, right)
    if op not in ("logical_not", "negative"):
        return None
    [operand] = operands
    if op == "negative":
        return Code(("-", *operand.within(UNARY)), UNARY, operand.plain)
    sign, level = ("not ", CONDITION) if operand.plain else ("~", UNARY)
    return Code((sign, *operand.within(level + 1)), level, operand.plain)


def _indexed(e: Emitter, node: Node, operands: Sequence[Code]) -> Code | None:
    """Return the code of an operation that is an index, e.g. ``x[:, 1:]``, or None."""
    if node.op == "take":
        return fill("^0[%1]", *operands)
    if node.op not in ("slice", "select"):
        return None
    axis = node.attributes["axis"]
    if node.op == "select":
        entry = e.size(node.attributes["index"])
    else:
        start, stop = Dim.of(node.attributes["start"]), Dim.of(node.attributes["stop"])
        first = "" if start == Dim() else e.size(start)
        last = "" if stop == e.types[node.inputs[0]].shape[axis] else e.size(stop)
        entry = f"{first}:{last}"
    return fill(f"^0[{':, ' * axis}{entry}]", *operands)


def _filled_template(
    e: Emitter,
    node: Node,
    operands: Sequence[Code],
    name: str,
    templates: Mapping[str, Template],
) -> Code:
    """Fill the template ``name`` with the operands and the attributes of a node."""
    template = templates[name]
    if not isinstance(template, str):
        return fill(template(e, node), *operands)
    texts = {name: _text(e, value) for name, value in node.attributes.items()}
    if "keepdims" in node.attributes:
        axes = node.attributes["axis"]
        texts["axis"] = e.shape(axes) if len(axes) > 1 else str(axes[0])
        texts["keepdims"] = str(templates["keepdims"]) if node.attributes["keepdims"] else ""
    return fill(template.format(like=e.like, **texts), *operands)


def expand_dims(e: Emitter, node: Node) -> str:
    """Return the template of ``expand_dims``: an index, as in ``x[:, None]``."""
    return f"^0[{':, ' * node.attributes['axis']}None]"


def names_in(templates: Mapping[str, Template]) -> frozenset[str]:
    """Return the dotted names in templates of source code, e.g. ``torch.exp``. The generated source
    may use these names."""
    texts = " ".join(text for text in templates.values() if isinstance(text, str))
    return frozenset(re.findall(r"(?<![\w.])[a-z]\w*(?:\.\w+)+", texts))


def _text(e: Emitter, value: Any) -> str:
    if isinstance(value, tuple) and all(isinstance(part, int | Dim) for part in value):
        return e.shape(value)
    return e.size(value) if isinstance(value, Dim) else repr(value)


def _axes(node: Node) -> bool:
    if node.op == "permute_dims":
        axes = node.attributes["axes"]
        return bool(axes != tuple(range(len(axes))))
    return bool(node.attributes["axis"])


def swaps_first(node: Node | None) -> bool:
    """Return whether a node swaps the first two axes of a tensor and keeps all others, e.g. to make
    ``[batch, time, ...]`` from ``[time, batch, ...]``."""
    if node is None or node.op != "permute_dims":
        return False
    axes = node.attributes["axes"]
    return bool(axes[:2] == (1, 0) and axes[2:] == tuple(range(2, len(axes))))


def ends_of(e: Emitter, node: Node) -> list[str]:
    """Return the variable names for the values that a loop (``node``) passes from one step to the
    next."""
    count = node.carries
    return [
        e.base(inner) or e.base(after) or e.base(last) or "carried"
        for inner, after, last in zip(
            node.block.inputs[:count], node.block.outputs, node.outputs, strict=False
        )
    ]


@dataclass(frozen=True)
class LayerBody:
    """The equations of one call of a layer, in training or in inference, from which a function is
    written.

    ``results`` has the indices of those results of the call that the function returns. ``moves`` is
    True if the function updates moving statistics before it returns. If the layer has nested
    layers, ``call_layer`` writes their calls, and ``known`` has the source of their parameters.
    ``like`` is the source of a tensor of the model's dtype, by default an argument.
    """

    program: Program
    call: Node
    results: Sequence[int]
    moves: bool = False
    call_layer: Callable[[Emitter, Node], None] | None = None
    known: Mapping[int, str] = field(default_factory=dict)
    like: str = ""

    def emit(
        self,
        dialect: Dialect,
        form: LayerForm,
        method: Method,
        depth: int,
        parameter: Callable[[str], str],
        reserved: set[str],
    ) -> tuple[Emitter, list[str], list[Code]]:
        """Write the body of the function. Return three things: the emitter (which has the lines),
        the names of the function's arguments, and the expressions of its results.

        ``parameter`` maps a parameter's name to its source text, e.g. ``self.W``. ``reserved`` has
        the variable names that must not be used. ``depth`` is the indentation.
        """
        body = self.call.block
        idioms = Idioms(dict(self.program.types), names=dict(self.program.names))
        nodes, outputs = idioms.block(body.nodes, [body.outputs[n] for n in self.results])
        reads = count_reads(nodes, outputs)
        # A result that nothing else reads is returned as an expression, without a name. In
        # training, statistics are updated before the return, so all results are variables.
        bare = {v for v in outputs if reads[v] == 1} if not self.moves else set()

        noise_values = {port.value: port.init or {} for port in noise_ports(self.program)}
        every = form.roles(self.call)
        roles = [(role, value) for role, value in every if value not in noise_values]
        floats = (r for r, value in roles if self.program.types[value].kind == "float")
        like = self.like or next(itertools.chain(map(parameter, form.float_shapes), floats), "")
        base = partial(self._base_name, bare)
        e = Emitter(dialect, idioms.types, base, self.program.sizes, like, depth)
        e.call = self.call_layer
        e.text.update(self.known)
        e.reserved |= reserved
        for role, value in zip(self.call.attributes["roles"], body.inputs, strict=True):
            if role in form.shapes:
                e.text[value] = parameter(role)
        e.left = reads
        e.left.update(value for _, value in roles)  # so that each argument gets its own name
        arguments = [e.argument(value, role) for role, value in roles]
        e.left.subtract(value for _, value in roles)
        for (role, value), name in zip(roles, arguments, strict=True):
            if role in method.optional:
                self._fill_missing(e, name, self.program.types[value].shape)
        for role, value in every:
            if value in noise_values:
                shape = self.program.types[value].shape
                noise = e.read(dialect.noise(e, noise_values[value], shape))
                e.write(f"{e.argument(value, role)} = {noise}")
        e.block(nodes, outputs)
        results = _results(e, outputs) if not self.moves else e.operands(outputs)
        passed = [value for role, value in roles if role not in method.optional]
        first = [
            f"{'    ' * depth}{line}" for line in e.free_sizes(passed, list(map(e.render, results)))
        ]
        e.lines[:0] = first
        return e, arguments, results

    def _base_name(self, bare: Collection[int], value: int) -> str:
        """Return the name of a value in the layer's equations, or "" if the value has no name or is
        in ``bare``."""
        prefix, name = f"{self.call.attributes['label']}/", self.program.names.get(value, "")
        is_own = value not in bare and name.startswith(prefix)
        return name.removeprefix(prefix) if is_own else ""

    @staticmethod
    def _fill_missing(e: Emitter, name: str, shape: Shape) -> None:
        """Write the lines that set an optional argument to zeros if the caller omits it."""
        e.write(f"if {name} is None:")
        e.depth += 1
        e.write(f"{name} = {e.render(e.dialect.filled(e, Code(('0.0',), plain=True), shape))}")
        e.depth -= 1


def _results(e: Emitter, outputs: Sequence[int]) -> list[Code]:
    """Return the expressions of a function's results. A call may be longer than one line, because
    :func:`return_lines` breaks it."""
    code = e.pending.get(outputs[0])
    if len(outputs) > 1 or code is None:
        return e.operands(outputs)
    first, *others = statement(e.depth, f"return {e.render(code)}")
    is_whole = not others or re.fullmatch(r" *return [\w.]+\(", first) is not None
    is_short = max(map(len, [first, *others])) <= LINE
    return [e.operand(outputs[0])] if is_whole and is_short else e.operands(outputs)


def return_lines(e: Emitter, results: Sequence[Code]) -> list[str]:
    """Return the source lines of the statement that returns ``results``."""
    return statement(e.depth, f"return {result_text(e, results)}")


def result_text(e: Emitter, results: Sequence[Code]) -> str:
    """Return the text of a return value: one expression, or several separated by commas."""
    return e.read(listed(results))
