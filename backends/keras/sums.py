"""A workaround for sums in which Keras on TensorFlow mistakes an operand for a bias.

``keras.ops.add(x, y)`` calls ``tf.nn.bias_add`` if only one axis of y is longer than 1, and this
axis is as long as axis 1 or the last axis of x. A column ``[3, 1]`` is then added to a square ``[3,
3]`` as if it were a row (https://github.com/keras-team/keras/pull/20386). The operator ``x + y`` is
correct, because TensorFlow implements it.
"""

from __future__ import annotations

from harness.extend import Program
from harness.extend.program import Dim, Node


def order_of_sum(program: Program, node: Node) -> tuple[int, int] | None:
    """Return the numbers of the operands of a sum, in an order in which Keras adds them correctly;
    return None if Keras adds them wrongly in both orders."""
    a, b = node.inputs
    for first, second in ((a, b), (b, a)):
        if adds_correctly(program, first, second):
            return first, second
    return None


def adds_correctly(program: Program, first: int, second: int) -> bool:
    """Return whether Keras adds the value with the number ``second`` to the value ``first``
    correctly. It does if ``second`` has the same axes as ``first``, or only the last axes of
    ``first``."""
    whole, part = (program.types[value].shape for value in (first, second))
    while part and part[0] == Dim(1):
        part = part[1:]
    if not part or whole == part:
        return True
    last, sizes = part[-1], program.sizes
    several = set(last.names) <= sizes.keys() and last.resolve(sizes) > 1
    return several and whole[len(whole) - len(part) :] == part
