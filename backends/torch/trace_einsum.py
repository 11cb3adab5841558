"""The rule that translates ``torch.einsum`` to matrix products and sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from harness.extend.models import GraphBuilder, Operand

from .trace_rules import RULES, OperatorArguments, TorchTranslation, unsupported


@RULES.of("einsum")
def _einsum(
    t: TorchTranslation, node: torch.fx.Node, a: OperatorArguments, about: dict[str, Any]
) -> Operand:
    operands = list(a["tensors"])
    a.read.add("path")  # the result does not depend on the order of the products
    read = _read(a["equation"], [len(t.builder.shape_of(o)) for o in operands])
    if read is None:
        return unsupported(t, node, about, f"the equation {a['equation']!r}")
    terms, result = read
    lengths = {
        letter: length
        for term, operand in zip(terms, operands, strict=True)
        for letter, length in zip(term, t.builder.shape_of(operand), strict=True)
        if length != 1
    }
    contraction = _Contraction(t.builder, about, lengths)
    value, term = operands[0], terms[0]
    for number, (other, own) in enumerate(zip(operands[1:], terms[1:], strict=True), 2):
        needed = "".join([result, *terms[number:]])
        value, term = contraction.join(value, term, other, own, needed)
    return contraction.finish(value, term, result)


def _read(equation: str, ranks: Sequence[int]) -> tuple[list[str], str] | None:
    """Return the letters of each operand's axes and those of the result; None for an axis that
    occurs twice in an operand. Letters replace an ellipsis."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    longest = max(
        (r - len(x) + 3 for x, r in zip(terms, ranks, strict=True) if "..." in x), default=0
    )
    dots = free[:longest]
    terms = [
        x.replace("...", "".join(dots[longest - (r - len(x) + 3) :]) if "..." in x else "")
        for x, r in zip(terms, ranks, strict=True)
    ]
    every = "".join(terms)
    if not arrow:
        result = "".join(
            [*dots, *sorted(c for c in set(every) if every.count(c) == 1 and c not in dots)]
        )
    result = result.replace("...", "".join(dots))
    return None if any(len(set(x)) < len(x) for x in terms) else (terms, result)


class _Contraction:
    """Products of two operands with named axes. ``lengths`` has the length of each axis."""

    def __init__(
        self, builder: GraphBuilder, about: dict[str, Any], lengths: dict[str, int]
    ) -> None:
        self.builder, self.about, self.lengths = builder, about, lengths

    def join(
        self, left: Operand, left_term: str, right: Operand, right_term: str, needed: str
    ) -> tuple[Operand, str]:
        """Return the product of two operands, and its letters; axes that are not needed later are
        summed."""
        left, left_term = self._sum(left, left_term, right_term + needed)
        right, right_term = self._sum(right, right_term, left_term + needed)
        both = [c for c in left_term if c in right_term and c in needed]
        summed = [c for c in left_term if c in right_term and c not in needed]
        rows = [c for c in left_term if c not in right_term]
        columns = [c for c in right_term if c not in left_term]
        if not summed or not (rows and columns):
            term = "".join([*both, *rows, *columns, *summed])
            spread = [self._spread(left, left_term, term), self._spread(right, right_term, term)]
            product = self._node("*", spread, self._shape(term))
            return self._sum(product, term, needed)
        left = self._matrix(left, left_term, both, rows, summed)
        right = self._matrix(right, right_term, both, summed, columns)
        sides = [math.prod(self._shape(group)) for group in (rows, columns)]
        product = self._node("@", [left, right], (*self._shape(both), *sides))
        term = "".join([*both, *rows, *columns])
        return self._reshape(product, self._shape(term)), term

    def finish(self, value: Operand, term: str, result: str) -> Operand:
        """Return a value with the axes of the result."""
        value, term = self._sum(value, term, result)
        return self._order(value, term, result)

    def _shape(self, term: Sequence[str]) -> tuple[int, ...]:
        return tuple(self.lengths.get(c, 1) for c in term)

    def _node(self, op: str, inputs: list[Operand], shape: Sequence[int], **attributes: Any) -> str:
        return self.builder.node(op, inputs, self.about, shape, **attributes)

    def _reshape(self, value: Operand, shape: tuple[int, ...]) -> Operand:
        same = self.builder.shape_of(value) == shape
        return value if same else self._node("reshape", [value], shape)

    def _sum(self, value: Operand, term: str, letters: str) -> tuple[Operand, str]:
        """Sum the axes whose letters are not in ``letters``."""
        rest = "".join(c for c in term if c in letters)
        if rest == term:
            return value, term
        axes = [n for n, c in enumerate(term) if c not in letters]
        return self._node("sum", [value], self._shape(rest), axis=axes, keepdims=False), rest

    def _order(self, value: Operand, term: str, result: str) -> Operand:
        if term == result:
            return value
        axes = [term.index(c) for c in result]
        return self._node("permute", [value], self._shape(result), axes=axes)

    def _spread(self, value: Operand, term: str, result: str) -> Operand:
        """Return a value with an axis of length 1 for each letter that it lacks."""
        own = "".join(c for c in result if c in term)
        value = self._order(value, term, own)
        return self._reshape(
            value, tuple(self.lengths.get(c, 1) if c in own else 1 for c in result)
        )

    def _matrix(
        self, value: Operand, term: str, both: list[str], rows: list[str], columns: list[str]
    ) -> Operand:
        value = self._order(value, term, "".join([*both, *rows, *columns]))
        sides = [math.prod(self._shape(group)) for group in (rows, columns)]
        return self._reshape(value, (*self._shape(both), *sides))
