"""Export of layers that Keras does not have, as Python source that uses ``keras.ops``.

Each layer becomes a class whose weights have their names from the spec; its method ``call``
computes the equations. The source imports only keras, so a ``.keras`` file and its module work
without the harness. A class is registered under a checksum of its source, so that modules of
several exports do not collide.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from harness.extend import Program
from harness.extend.program import Dim, Node, Shape, free_values, order_of_taken, pads_of
from harness.extend.source import INDENT, PYTHON, bracketed, identifier, unique

from .primitives_export import CALLS, DECORATOR, INFIX
from .sizes import (
    bounds,
    find_axis,
    free_sizes,
    has_flat_indices,
    stacked_outputs,
    with_known_sizes,
)
from .sums import adds_correctly

# Sliding windows are gathered axis by axis, and summed by matrix products.

Text = Callable[[Dim], str]


def _places(node: Node, number: int, count: Dim, text: Text) -> str:
    """Return source code for the positions of the entries of windows along one axis. The positions
    have the shape ``[count, size]``: number of windows, entries of a window.

    ``number`` is the position of the axis among the windowed axes.
    """
    step, apart, size = (
        Dim.of(node.attributes[name][number]) for name in ("stride", "dilation", "size")
    )
    starts = f'ops.arange({text(count)}, dtype="int32")[:, None]'
    offsets = f'ops.arange({text(size)}, dtype="int32")'
    starts += "" if step == Dim(1) else f" * {text(step)}"
    offsets += "" if apart == Dim(1) else f" * {text(apart)}"
    return f"{starts} + {offsets}"


def _windows(node: Node, shape: Shape, operand: str, text: Text) -> str:
    attributes, rank = node.attributes, len(shape)
    axes = attributes["axes"]
    pads = [(Dim.of(a), Dim.of(b)) for a, b in pads_of(attributes, rank)]
    if any(dim != Dim() for pair in pads for dim in pair):
        every = [f"({text(before)}, {text(after)})" for before, after in pads]
        fill = 'float("-inf")' if attributes["lowest"] else "0.0"
        operand = f"ops.pad({operand}, [{', '.join(every)}], constant_values={fill})"
    for number, axis in reversed([*enumerate(axes)]):
        if Dim.of(attributes["length"][number]) == shape[axis] + sum(pads[axis], Dim()):
            operand = f"ops.expand_dims({operand}, axis={axis + 1})"  # windows of one entry
            continue
        places = _places(node, number, attributes["length"][number], text)
        operand = f"ops.take({operand}, {places}, axis={axis})"
    order = order_of_taken(axes, rank)
    return operand if order == sorted(order) else f"ops.transpose({operand}, {order})"


def _overlap_add(node: Node, shape: Shape, operand: str, text: Text) -> str:
    attributes = node.attributes
    axes, rank = attributes["axes"], len(shape)
    left = [*range(rank)]
    for number, axis in enumerate(axes):
        window = axes[-1] + 1 + number
        before, length = (Dim.of(attributes[n][number]) for n in ("padding", "length"))
        after = Dim.of(attributes["after"][number])
        places = _places(node, number, shape[axis], text)
        whole = text(before + length + after)
        ones = f"ops.one_hot({places}, {whole}, dtype=self.compute_dtype)"
        ones += f"[:, :, {text(before)}:{text(before + length)}]"
        both = (left.index(axis), left.index(window))
        operand = f"ops.tensordot({operand}, {ones}, axes=({both}, (0, 1)))"
        left = [n for n in left if n not in (axis, window)] + [axis]
    order = sorted(left)
    return f"ops.transpose({operand}, {[left.index(n) for n in order]})"


FRAMING: Mapping[str, Callable[[Node, Shape, str, Text], str]] = {
    "windows": _windows,
    "overlap_add": _overlap_add,
}


# Operations that the writer computes in float64 if all operands are constants.
FOLDED: Mapping[str, Callable[..., float]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "power": operator.pow,
    "negative": operator.neg,
    **{
        name: getattr(math, name)
        for name in ("exp", "log", "tanh", "sqrt", "sin", "cos", "erf", "floor")
    },
}
# Names that the source uses itself, and argument names of Keras.
RESERVED = PYTHON | {
    *("self", "ops", "keras", "inputs", "form", "training", "mask"),
    *("step", "each", "carried", "slices", "sequence", "hard_sigmoid_fifth"),
}


def registered(text: str) -> str:
    """Return the source of a class or function, preceded by the decorator that registers it in
    Keras."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f'@{DECORATOR}(package="harness-{digest}")\n{text}'


HARD_SIGMOID_FIFTH = registered(
    '''def hard_sigmoid_fifth(x):
    """The hard sigmoid of Keras 1 and 2: a line of slope 1/5, cut off at 0 and 1."""
    y = 0.2 * x + 0.5
    y = ops.where(y <= 0.0, ops.zeros_like(y), y)
    return ops.where(y >= 1.0, ops.ones_like(y), y)
'''
)


class CallWriter:
    """The writer of the ``call`` method of a generated layer. ``arguments`` and ``weights`` map the
    number of a value in the program to its name in the source."""

    def __init__(
        self, program: Program, arguments: Mapping[int, str], weights: Mapping[int, str]
    ) -> None:
        self.program = program
        self.lines: list[str] = []
        self._arguments, self._weights = arguments, frozenset(weights)
        self._texts = {**arguments, **{v: f"self.{name}" for v, name in weights.items()}}
        self._precedence: dict[int, int] = {}
        self._numbers: dict[int, float] = {}
        self._taken = {*RESERVED, *arguments.values()}
        self._uses: Counter[int] = Counter()
        self._sizes: dict[str, Dim] = {}  # the variables of free sizes

    def write(self, nodes: Sequence[Node], outputs: Sequence[int]) -> list[str]:
        """Return the source lines of the method: they compute ``nodes``, and the last line returns
        ``outputs``."""
        self._count(nodes, outputs)
        for size in sorted(free_sizes(self.program, nodes)):
            place = find_axis(self.program, self._arguments, size)
            assert place is not None
            value, axis = place
            name = self._fresh(size)
            self._sizes[size] = Dim.of(name)
            self.lines.append(f"{name} = ops.shape({self._arguments[value]})[{axis}]")
        self._block(nodes, "")
        texts = [self._result(value) for value in outputs]
        self.lines.append(f"return {texts[0]}" if len(texts) == 1 else f"return {_list(texts)}")
        return self.lines

    def _result(self, value: int) -> str:
        """Return source code for a result, as a tensor. Python numbers and weights are converted to
        tensors."""
        text = self._texts[value]
        if value in self._numbers:
            return f"ops.full((), {text}, dtype=self.compute_dtype)"
        return f"{text}.value" if value in self._weights else text

    def _count(self, nodes: Iterable[Node], outputs: Iterable[int]) -> None:
        self._uses.update(outputs)
        for node in nodes:
            self._uses.update(node.inputs)
            if node.body is not None:
                # Count the value twice, so that it gets a variable outside of the loop and is not
                # computed at every step.
                self._uses.update([*free_values(node.body)] * 2)
                self._count(node.body.nodes, node.body.outputs)

    def _block(self, nodes: Iterable[Node], indent: str) -> None:
        for node in nodes:
            if node.op == "scan":
                self._scan(node)
            elif node.op == "constant":
                figure = float(node.attributes["value"])
                is_float = self.program.types[node.output].kind == "float"
                self._number(node.output, figure if is_float else int(figure))
            elif node.op in FOLDED and self._numbers.keys() >= set(node.inputs):
                numbers = [self._numbers[value] for value in node.inputs]
                self._number(node.output, float(FOLDED[node.op](*numbers)))
            else:
                self._assign(node, indent)

    def _number(self, value: int, number: float) -> None:
        """Let source code use a constant as a Python number. Such a number takes the dtype of the
        other operand."""
        self._numbers[value], self._texts[value] = number, repr(number)
        self._precedence[value] = 3 if number >= 0 else 0

    def _assign(self, node: Node, indent: str) -> None:
        text = self._expression(node)
        if self._uses[node.output] == 1 and node.output not in self.program.names:
            self._texts[node.output] = text
            if node.op in INFIX:
                self._precedence[node.output] = INFIX[node.op][1]
        else:
            name = self._texts[node.output] = self._name(node.output)
            self.lines.append(f"{indent}{name} = {text}")

    def _expression(self, node: Node) -> str:
        operands = [self._texts[value] for value in node.inputs]
        attributes = {name: self._value(value) for name, value in node.attributes.items()}
        if node.op in INFIX:
            sign, own = INFIX[node.op]
            # Python evaluates sums and products from the left, so the left operand needs no
            # brackets.
            left = self._wrapped(node.inputs[0], own)
            # If an operand is a weight, ``+`` calls Keras' own sum.
            by_keras = node.op == "add" and node.inputs[0] in self._weights
            if by_keras and not adds_correctly(self.program, *node.inputs):
                left = f"{left}.value"
            return f"{left} {sign} {self._wrapped(node.inputs[1], own + 1)}"
        if node.op in FRAMING:
            shape = self.program.types[node.inputs[0]].shape
            return FRAMING[node.op](node, shape, operands[0], self._dim)
        if node.op == "concat":
            return f"ops.concatenate({_list(operands)}, axis={attributes['axis']})"
        if node.op in ("slice", "select"):
            bound_texts = {n: self._dim(d) for n, d in bounds(self.program, node).items()}
            part = f"{bound_texts.get('start', '')}:{bound_texts.get('stop', '')}"
            index = ", ".join([":"] * node.attributes["axis"] + [bound_texts.get("index", part)])
            return f"{self._wrapped(node.inputs[0], 3)}[{index}]"
        if node.op == "extent":
            factors = " * ".join(f"({self._dim(dim)})" for dim in node.attributes["dims"])
            return f"ops.cast({factors}, self.compute_dtype)"
        if node.op == "broadcast_to" and node.inputs[0] in self._numbers:
            return f"ops.full({attributes['shape']}, {operands[0]}, dtype=self.compute_dtype)"
        if node.op == "segment_sum" and not has_flat_indices(self.program, node):
            flat = self._value((Dim(-1), *self.program.types[node.output].shape[1:]))
            operands = [f"ops.reshape({operands[0]}, {flat})", f"ops.reshape({operands[1]}, (-1,))"]
        return CALLS[node.op].format(*operands, **attributes)

    def _wrapped(self, value: int, least: int) -> str:
        text = self._texts[value]
        return f"({text})" if self._precedence.get(value, 3) < least else text

    def _scan(self, node: Node) -> None:
        """Write a loop over time as ``ops.scan``.

        On TensorFlow, Keras stacks carried values only, so the loop carries all values that it
        stacks. Keras accepts only one sequence of free length. With several sequences, the loop
        runs over step numbers and indexes each sequence.
        """
        body, count = node.block, node.carries
        stacked_values = stacked_outputs(node)
        carried = [*body.outputs[:count], *stacked_values]
        first = [self._texts[value] for value in node.inputs[:count]]
        for value, text in zip(body.inputs, [*first, *node.inputs[count:]], strict=True):
            old = f"old_{text}" if str(text).isidentifier() else "old"
            self._texts[value] = self._name(value, old)
        first += [self._zeros(value) for value in stacked_values]
        names = [self._texts[value] for value in body.inputs]
        over = _list([self._texts[value] for value in node.inputs[count:]])
        slices = "slices"
        if len(names) > count + 1:
            self.lines.append(f"each = {over}")
            over = "[ops.arange(ops.shape(each[0])[0])]"
            slices = "[ops.take(sequence, slices[0], axis=0) for sequence in each]"
        self.lines += [
            *([""] if self.lines else []),
            "def step(carried, slices):",
            f"{INDENT}{_list(names[:count] + ['_'] * len(stacked_values))} = carried",
            f"{INDENT}{_list(names[count:])} = {slices}",
        ]
        self._block(body.nodes, INDENT)
        results = _list([self._texts[value] for value in carried])
        self.lines += [f"{INDENT}return {results}, {results}", ""]
        reverse = ["reverse=True"] if node.reverse else []
        arguments = ["step", _list(first), over, *reverse]
        # Wrap the line for an indentation of two levels, as in a method.
        last, stacked = self._fresh("last"), self._fresh("stacked")
        whole = bracketed(2, f"{last}, {stacked} = ops.scan(", arguments, ")")
        self.lines += [line[2 * len(INDENT) :] for line in whole]
        for number, value in enumerate(node.outputs[:count]):
            self._texts[value] = f"{last}[{number}]"
        for value, output in zip(node.outputs[count:], body.outputs[count:], strict=True):
            self._texts[value] = f"{stacked}[{carried.index(output)}]"

    def _zeros(self, value: int) -> str:
        shape = self._value(self.program.types[value].shape)
        return f"ops.zeros({shape}, dtype=self.compute_dtype)"

    def _value(self, value: Any) -> str:
        if isinstance(value, tuple):
            return f"({', '.join(map(self._value, value))}{',' if len(value) == 1 else ''})"
        return self._dim(value) if isinstance(value, Dim) else repr(value)

    def _dim(self, dim: Dim) -> str:
        return str(with_known_sizes(self.program, dim).substitute(self._sizes))

    def _name(self, value: int, otherwise: str = "t") -> str:
        return self._fresh(identifier(self.program.names.get(value, "") or otherwise))

    def _fresh(self, name: str) -> str:
        name = unique(name, self._taken)
        self._taken.add(name)
        return name


def _list(texts: Sequence[str]) -> str:
    return f"[{', '.join(texts)}]"


# The script that runs a model (see :class:`harness.extend.formats.Script`). It computes gradients
# on TensorFlow only, because their code depends on the engine.
SCRIPT = '''def run(inputs, state, cotangents):
    """{about} by name."""
    model = keras.models.load_model(FOLDER / {weights}, compile=False)
    given = {{**inputs, **{{f"state.{{name}}": array for name, array in state.items()}}}}
    arrays = {{t.name: np.asarray(given[t.name], t.dtype) for t in model.inputs}}
    {tape}results = model(arrays if len(arrays) > 1 else next(iter(arrays.values())))
    found = {{
        name if name.startswith("state.") else f"output.{{name}}": value
        for name, value in results.items()
    }}{gradients}
    return {{name: np.array(keras.ops.convert_to_numpy(value)) for name, value in found.items()}}
'''
PLAIN = {"about": "Outputs and the new state", "tape": "", "gradients": ""}
DIFFERENTIATED = {
    "about": "Outputs, the new state, and the gradients along cotangents, all",
    "tape": "with tf.GradientTape(persistent=True) as tape:\n        ",
    "gradients": """
    variables = {
        f"gradient.{layer.name}/{variable.name}": variable.value
        for layer in model.layers
        for variable in layer.trainable_variables
    }
    directions = {name: tf.cast(c, found[name].dtype) for name, c in cotangents.items()}
    if cotangents:
        along = [found[name] for name in directions]
        gradients = tape.gradient(along, variables, output_gradients=list(directions.values()))
        found |= {
            name: tf.convert_to_tensor(gradient)
            for name, gradient in gradients.items()
            if gradient is not None
        }""",
}
