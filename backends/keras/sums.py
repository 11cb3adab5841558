"""Sums of two tensors of which Keras on TensorFlow takes one for a bias.

``keras.ops.add(x, y)`` there gives way to ``tf.nn.bias_add`` where all axes of y but one have one
entry, and that one is as long as axis 1 or the last of x: a column ``[3, 1]`` is added to a square
``[3, 3]`` as if it were a row (https://github.com/keras-team/keras/pull/20386). Signs are right:
``x + y`` of tensors is TensorFlow's own.
"""

from __future__ import annotations

from harness.extend import Program
from harness.extend.program import Dim, Node


def order_of_sum(program: Program, node: Node) -> tuple[int, int] | None:
    """The operands of a sum in an order in which no engine takes the second one for a bias where
    it is none; None where there is no such order."""
    a, b = node.inputs
    for first, second in ((a, b), (b, a)):
        if adds_right(program, first, second):
            return first, second
    return None


def adds_right(program: Program, first: int, second: int) -> bool:
    """Whether the second operand has the axes of the first, or the last of them and a bias then is
    one of the last axis."""
    whole, part = (program.types[value].shape for value in (first, second))
    while part and part[0] == Dim(1):
        part = part[1:]
    if not part or whole == part:
        return True
    last, sizes = part[-1], program.sizes
    several = set(last.names) <= sizes.keys() and last.resolve(sizes) > 1
    return several and whole[len(whole) - len(part) :] == part
